"""Boot a packed set in a virtual machine, and say whether it came up."""
