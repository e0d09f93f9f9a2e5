"""Sweeps: many arms made from options that are lists, measured cell by cell, kept as they come.

`spec` says what to measure, `keeping` stores what is done, `run` measures what is left, `frame`
lays cells out for heat maps and lines.
"""
