"""Trainings of heads as jobs of the worker; the training itself is in `engine.training`."""
