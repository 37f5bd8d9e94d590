"""xCAT: its programs, what they would refuse, its locks, noderanges."""
