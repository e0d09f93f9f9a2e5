"""Comparisons: arms, how each decodes, how they are prepared and kept, and what was found.

`workbench.compare.compare` is the protocol; start reading there.
"""
