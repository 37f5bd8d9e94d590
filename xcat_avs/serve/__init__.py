"""What nodes boot: published sets, the switch from one to the next, the nodes."""
