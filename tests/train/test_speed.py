"""FLOP of the network, and the devices that are known."""

import io
import itertools
import sys
import time
import types

import jax
import pytest
from etils import epath

from experiments.tpu_plan import count_flops
from isrrescnet_jax import LearnedPrior, ModelConfig, init_weights
from isrrescnet_jax.train import speed
from isrrescnet_jax.train.report import Report


def test_flops_are_those_of_the_official_network():
    # 44.7 k products in encoder, decoder and compression and 1 474.6 k in the 3x3 convolutions.
    by_hand = 2 * (25 * 3 * 64 * 2 + 4 * (128 * 64 + 10 * 9 * 64 * 64))
    assert speed.network_flops(ModelConfig()) == by_hand == pytest.approx(3.03e6, rel=0.01)


def test_flops_are_what_the_traced_network_computes():
    config = ModelConfig(features=8, depth=2, feedback_steps=3, iterations=1)
    prior = LearnedPrior.from_weights(init_weights(config, jax.random.key(0)))
    z = jax.numpy.zeros((1, 64, 64, 3))
    traced = jax.make_jaxpr(lambda z: prior.residual(z))(z)
    # Borders, which are computed apart, are more of a small image than of a large one.
    assert count_flops(traced.jaxpr) / 64**2 == pytest.approx(speed.network_flops(config), rel=0.1)


def test_devices_are_known_by_their_names():
    def peak(kind):
        return speed.peak(types.SimpleNamespace(device_kind=kind))

    assert peak("NVIDIA H100 80GB HBM3") == 989e12
    assert peak("TPU v5 lite") == 197e12 and peak("TPU v5") == 459e12
    assert peak("cpu") is None


def test_the_bar_does_not_look_at_the_clock_on_the_wall(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    jumps = itertools.cycle((-86_400, 365 * 86_400))
    monkeypatch.setattr("tqdm.std.time", lambda: time.monotonic() + next(jumps))
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Report(epath.Path(tmp_path), 0, 100, 4) as report:
        for _ in range(3):
            time.sleep(0.12)  # the least between two drawings is 0.1
            report.step({"loss": 1.0, "psnr": 20.0})
        shown = report._bar.format_dict
    assert 0.3 < shown["elapsed"] < 60 and 0.1 < shown["rate"] < 10
