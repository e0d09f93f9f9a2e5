"""Tuning: a search over a method's options by Optuna, on a pair and a workload, kept as a study."""
