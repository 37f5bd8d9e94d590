"""Compute the differences between two versions, and put them into words."""
