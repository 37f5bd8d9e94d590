"""A tree of files: its manifest, restoring it, and the packages, kernels and initrds in it."""
