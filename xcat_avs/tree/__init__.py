"""A tree of files: what it is, path by path; making it that again; what it holds."""
