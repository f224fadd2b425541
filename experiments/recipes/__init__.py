"""Recipes for other problems than super-resolution, and what they are compared with."""
