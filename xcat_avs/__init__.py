"""avsimage: versioned netboot images for xCAT clusters."""

__version__ = "0.1.0"
