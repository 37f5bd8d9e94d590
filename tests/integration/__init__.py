"""Tests that run the command on real trees, with the real programs."""
