"""One file per kind of worker process, and the shell that they share."""
