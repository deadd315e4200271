"""System calls: loop, channels, processes, listeners, log files. Never a rule about consoles."""
