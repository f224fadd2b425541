"""The harness of the benchmarks: turns, processes, memory and programs are what they say."""

import json
import os
import time

import jax
import numpy as np
import pytest

from experiments import harness


def test_calls_take_turns_and_the_first_does_not_count():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = harness.taking_turns(calls, 3)
    assert order == ["a", "b"] * 4
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
    assert all(times == sorted(times) for times in seconds.values())
    by_another_clock = harness.taking_turns(calls, 2, clock=iter(range(0, 99, 3)).__next__)
    assert by_another_clock == {"a": [3, 3], "b": [3, 3]}
    assert harness.medians(calls, 2).keys() == {"a", "b"}
    assert harness.spread([3, 1, 2], 1) == "2.0 (1.0 to 3.0)"


def sum_of(size):
    """Takes that many MiB while it is called."""

    def call(value):
        return float(np.full(size * 2**17, value).sum()), os.getpid()

    return call


def fails(size):
    raise ValueError(f"no {size}")


def test_a_worker_is_a_process_of_its_own():
    with harness.Worker(sum_of, 64) as worker, harness.Worker(fails, 3) as failing:
        failing.wait()
        (total, first), (_, second) = worker(0.5), worker(1.0)
        assert total == 64 * 2**16 and first == second != os.getpid()
        assert worker.seconds > 0
        assert worker.growth() > 60 * 2**20
        with pytest.raises(ValueError, match="no 3"):
            failing()
    assert harness.in_a_process(os.getpid) != os.getpid()


TAKES = """
import sys, mmap, os, time
held = bytearray(os.urandom(1)) * (int(sys.argv[1]) * 2**20)
file = mmap.mmap(os.open(sys.argv[2], os.O_RDONLY), 0, prot=mmap.PROT_READ)
total = sum(file[i] for i in range(0, len(file), 4096))
time.sleep(0.5)
print(os.environ["WORD"])
"""


def test_anonymous_memory_leaves_files_out(tmp_path, monkeypatch):
    (tmp_path / "takes.py").write_text(TAKES)
    (tmp_path / "file").write_bytes(bytes(64 * 2**20))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    used = harness.command(["takes", 32, tmp_path / "file"], {"WORD": "said"})
    assert used.output == "said\n" and used.seconds > 0.5
    if used.resident is not None:
        assert used.resident > 96 * 2**20
        assert used.anonymous is not None and 32 * 2**20 < used.anonymous < 80 * 2**20
    with pytest.raises(RuntimeError, match="IndexError"):
        harness.command(["takes"], {})


def test_programs_are_counted():
    double = jax.jit(lambda x: 2 * x + time.time())
    with harness.compiled_programs() as found:
        for _ in range(2):
            double(np.ones(3, np.float32))
    double(np.ones(4, np.float32))
    assert len(found) == 1


def test_tables_and_files(tmp_path, capsys):
    table = harness.Table("way", "seconds")
    table.row("one", 1.5)
    assert capsys.readouterr().out == "\n| way | seconds |\n| --- | ---: |\n| one | 1.5 |\n"
    harness.write_json(tmp_path / "f.json", [1], "jax")
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["rows"] == [1] and f"jax {jax.__version__}" in found["environment"]
    harness.write_json(None, [1])


def test_the_photograph_has_any_size():
    image = harness.photograph(700, 90)
    assert image.shape == (700, 90, 3) and image.std() > 10
