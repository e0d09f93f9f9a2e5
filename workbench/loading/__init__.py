"""Load: requests as they come, generated or from a trace, served, measured and kept as a run."""
