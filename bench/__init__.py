"""Benchmarks: every op and network against what a user might pick instead, on this machine."""
