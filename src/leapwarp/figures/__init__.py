"""Figures: each module reads one tidy CSV (and the paper's numbers) and writes PNGs into a folder."""
