"""Pure rules of consoles: names, journal positions, access. Never a system call."""
