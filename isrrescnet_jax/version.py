"""The version, here and nowhere else: rooms of every height may ask for it."""

__version__ = "0.1.0"
