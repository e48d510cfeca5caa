"""Simulated tasks: drawn from a seed, without any data."""
