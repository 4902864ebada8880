"""Bounds by diagonal multipliers: the largest product of layers over all slopes of the activation."""
