"""The fault run: commands that are killed, starved and cheated at random points. `./runtests faults`."""
