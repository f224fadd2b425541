"""What several test files need."""

import contextlib
import dataclasses
import os
from pathlib import Path

# Before anything imports JAX, and for the processes that tests start: compiling is what takes time
# here, and more than half of it goes into speed that small arrays do not need. LLVM then optimises
# nothing, and XLA writes loops in its older way; the operations that a program has are the same,
# and so are results but for rounding. As for users: JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS=
# pytest, which `.ci/run` does for parity and images of any size, or, for what takes long to run,
# within `optimized`.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import settings

# Before anything imports the library: all annotations are checked, shapes and types of arrays too,
# and as everywhere in Python a whole number will do for a float.
CHECKED = ["isrrescnet_jax", "convert"]
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook(CHECKED, CHECKER)

from bucket import bucket  # noqa: E402, F401

import isrrescnet_jax as isr  # noqa: E402

settings.register_profile(
    "default", max_examples=12, deadline=None, derandomize=True, print_blob=True
)
settings.load_profile("default")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def small() -> isr.Weights:
    """A small random network with enough of a residual to matter."""
    config = isr.ModelConfig(features=8, depth=2, feedback_steps=2, iterations=3, scale=2)
    return isr.init_weights(config, jax.random.key(0))


@pytest.fixture(scope="module")
def weights(small, tmp_path_factory) -> str:
    """The file of that network."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    isr.save_weights(small, path)
    return str(path)


@pytest.fixture
def unchecked():
    """Annotations are not checked: the library's own words about a wrong argument are tested."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


def exact(weights: isr.Weights, step: float = 1.0) -> isr.Weights:
    """The same parameters as if they had been trained with exact physics."""
    config = dataclasses.replace(weights.config, physics="exact", step=step)
    return isr.Weights(weights.params, config)


def photo(h: int, w: int, n: int = 1, seed: int = 0) -> np.ndarray:
    """Random but smooth images (n, h, w, 3), uint8: waves with a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:h, :w]
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1, 3))
    speed = rng.uniform(0.1, 1.0, (2, n, 1, 1, 3))
    waves = np.sin(rows[..., None] * speed[0] + columns[..., None] * speed[1] + phase)
    values = 127 + 100 * waves + rng.normal(0, 5, (n, h, w, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@contextlib.contextmanager
def optimized():
    """Programs that are first compiled herein are as fast as they are for users."""
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
