"""Comparisons that are stored as files, on published models, for anyone to start."""
