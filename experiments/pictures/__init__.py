"""The pictures of the README and the documentation, made by `python -m experiments.pictures`."""
