"""The operating system: locks, sockets' files, signals, logs, readiness, child processes."""
