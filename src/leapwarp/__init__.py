"""Leap and WarpGrad: meta-learning from whole learning processes."""

__version__ = "0.1.0"
