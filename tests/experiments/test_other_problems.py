"""The recipes for other problems, with the weights that lie beside them."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

import isrrescnet_jax as isr
from experiments.recipes import __main__ as table
from isrrescnet_jax.evaluation.metrics import psnr
from isrrescnet_jax.train import load_recipe

FOLDER = Path(table.__file__).parent


@pytest.mark.parametrize(("name", "margin"), [("deblur", 1), ("mri", 10), ("inpaint", 0.5)])
def test_what_was_trained_beats_what_it_is_compared_with(name, margin):
    """On photographs, or phantoms, that it has not seen; by so many dB."""
    file = FOLDER / f"{name}.py"
    restore = isr.load_weights(FOLDER / f"{name}.safetensors", recipe=file)
    recipe = load_recipe(str(file))
    if recipe.held_out is None:
        photographs = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
        items = [image[100:196, 160:256] for image in photographs] * 2
    else:
        items = [recipe.held_out[i] for i in range(2)]
    assert recipe.measure is not None
    examples = [recipe.measure(item, np.random.default_rng(i)) for i, item in enumerate(items)]
    baselines = table.BASELINES[name](examples)
    usual = {"deblur": "Wiener, mean strength", "mri": "zero-filled", "inpaint": "biharmonic"}[name]
    ours, theirs = [], []
    for example in examples:
        found = restore({key: value[None] for key, value in example.items()})[0]
        ours.append(psnr(np.asarray(found), example["hr"]))
        theirs.append(psnr(baselines[usual](example), example["hr"]))
    assert np.mean(ours) > np.mean(theirs) + margin
