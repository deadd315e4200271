"""vspcd: a console server for virtual and real serial ports. Owns nothing; see ARCHITECTURE.md."""

__version__ = "0.1.0"
