"""Replaced by `paper.py`: `isrrescnet train experiments/paper.py --scale 3` is this recipe."""

from pathlib import Path

from isrrescnet_jax.train import load_recipe

config = load_recipe(str(Path(__file__).with_name("paper.py")), scale=3).config
