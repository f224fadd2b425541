import collections
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray")
TESTS = Path(__file__).parents[1]


def start(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    words = [sys.executable, "-m", "cluster_work", *(str(folder / n) for n in ("in", "out", "log"))]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)


def wait(condition) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_and_the_command_are_killed(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(200):
        (tmp_path / "in" / f"{i:03}.png").write_text(f"picture {i:03}")
    log, out = tmp_path / "log", tmp_path / "out"
    begun = lambda: len(log.read_text().splitlines()) if log.exists() else 0  # noqa: E731
    done = lambda: sorted(p.name for p in out.glob("*.png"))  # noqa: E731
    first = start(tmp_path)
    wait(lambda: begun() > 20)
    psutil.Process(int(log.read_text().split()[0])).kill()
    wait(lambda: len(done()) >= 64)
    family = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    psutil.wait_procs(family, 10)  # two that only report stay longer
    there = done()
    assert 64 <= len(there) < 200
    for name in there:
        assert (out / name).read_bytes() == (tmp_path / "in" / name).read_bytes()[::-1]
    before = collections.Counter(line.split()[2] for line in log.read_text().splitlines())
    assert start(tmp_path).wait() == 0
    assert len(done()) == 200 and not [p for p in out.iterdir() if p.suffix != ".png"]
    after = collections.Counter(line.split()[2] for line in log.read_text().splitlines())
    assert all(after[Path(name).stem] == before[Path(name).stem] for name in there)
    assert max(after.values()) <= 3
