"""This machine: processes, mounts, locks, files, progress."""
