"""The call of a few minutes: what is first, what is cut off, and what the plan allows."""

from pathlib import Path

import pytest

from experiments import gpu_call
from experiments.gpu_call import Call, Part


def test_parity_comes_first_and_every_variant_is_known():
    from experiments.benchmark import default_variants

    parts = gpu_call.parts(Call(Path("out")))
    names = [part.name for part in parts]
    assert names[0] == "parity" and len(set(names)) == len(names)
    speed = [part for part in parts if "experiments.benchmark" in part.words]
    assert {"inference", "training"} <= {word for part in speed for word in part.words}
    _, known = default_variants("inference")
    kinds = {name.rsplit("/", 1)[0] for name in known}
    for part in speed:
        variants = part.words[part.words.index("--variants") + 1 :]
        assert {name.rsplit("/", 1)[0] for name in variants} <= kinds


def test_parts_end_in_time_and_the_rest_is_named():
    def sleep(name, seconds, limit=60.0):
        code = f"import time; time.sleep({seconds})"
        return Part(name, ("timeit", "-n1", "-r1", code), limit)

    parts = [sleep("short", 0), Part("broken", ("timeit", "1 / 0"), 60), sleep("long", 99, 0.5)]
    assert gpu_call.run(parts, 60) == {"short": "done", "broken": "failed", "long": "over time"}
    assert gpu_call.run(parts, 4) == dict.fromkeys(("short", "broken", "long"), "no time")


def test_parity_on_this_device(capsys):
    gpu_call.parity()
    assert "grey levels" in capsys.readouterr().out


def test_shares_are_of_the_bound_in_the_plan():
    rows = [
        {
            "task": "training",
            "iterations": k,
            "dtype": "bfloat16",
            "megapixels_per_second_A": 8.0 * k,
        }
        for k in (1, 10)
    ]
    assert gpu_call.shares(2.0, rows) == {"A": pytest.approx(0.25)}
