"""Osimage definitions: their sources, osvers, and the package lists and exlists that they name."""
