"""A version as one HTML file to look at: data in, page out. It knows nothing of stores and sites."""
