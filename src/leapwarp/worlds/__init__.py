"""Families of tasks: those that are drawn from data, and those that are simulated from a seed."""
