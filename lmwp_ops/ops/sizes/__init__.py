"""Sizes as arguments of Triton kernels."""
