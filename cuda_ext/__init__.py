"""Kernels of a decoding step: CPU code compiled by Numba (CUDA twins to follow)."""
