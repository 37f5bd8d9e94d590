"""Stand-ins for the programs of xCAT, after recorded runs of the real ones."""
