"""Drafting methods, one file each. The contract is in base.py, the list in engine/registry.py."""
