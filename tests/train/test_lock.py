"""Whose workdir it is, here and in a bucket."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import fails
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from small_recipe import RECIPE

from isrrescnet_jax.train import lock


class Bucket(MemoryFileSystem):
    """Cloud Storage, as far as fsspec shows it."""

    protocol = ("gs", "gcs")
    store: dict = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gs://"))


class Careless(Bucket):
    """A file system that cannot refuse to write over a file."""

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        raise NotImplementedError


@pytest.fixture(params=["local", "bucket", "careless"])
def workdir(request, tmp_path, monkeypatch):
    if request.param == "local":
        yield epath.Path(tmp_path / "run")
        return
    kind = {"bucket": Bucket, "careless": Careless}[request.param]
    for name in ("gs", "gcs"):
        monkeypatch.setitem(_registry, name, kind)
    known = epath.backend.fsspec_backend._get_filesystem
    known.cache_clear()
    yield epath.Path(f"gs://bucket/{tmp_path.name}")
    known.cache_clear()


@pytest.fixture
def neighbour():
    """Another process that lives."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def of(pid, **changes):
    """The lock of a process of this host."""
    return lock._myself() | {"pid": pid, "birth": lock._birth(pid), "token": "other"} | changes


def write(workdir, there):
    workdir.mkdir(parents=True, exist_ok=True)
    lock.place(workdir, 0).write_text(json.dumps(there))


def test_a_lock_is_there_as_long_as_it_is_held(workdir):
    with lock.held(workdir) as token:
        there = lock.read(lock.place(workdir, 0))
        assert (there["token"], there["pid"]) == (token, os.getpid())
        with lock.held(workdir) as again, lock.held(workdir, process=1) as other:
            assert again == token != other
        assert lock.read(lock.place(workdir, 0)) == there
    assert lock.read(lock.place(workdir, 0)) is None


def test_another_process_of_this_host_is_respected_until_it_is_gone(workdir, neighbour):
    write(workdir, of(neighbour.pid, started="yesterday"))
    words = f"is that of process {neighbour.pid} on .*, there since yesterday: stop it"
    for take_over in (False, True):
        with pytest.raises(ValueError, match=words), lock.held(workdir, take_over=take_over):
            pass
    assert lock.read(lock.place(workdir, 0))["token"] == "other"
    neighbour.kill()  # not waited for: it is what Unix calls a zombie
    while lock._birth(neighbour.pid) != "ended":
        pass
    with lock.held(workdir) as token:
        assert lock.read(lock.place(workdir, 0))["token"] == token


def test_a_later_process_with_the_same_number_is_another(workdir, neighbour):
    write(workdir, of(neighbour.pid, birth="another boot 123"))
    with lock.held(workdir):
        pass


def test_that_of_another_host_is_taken_over_by_request_alone(workdir):
    write(workdir, of(1, host="elsewhere"))
    with pytest.raises(ValueError, match="process 1 on elsewhere.*--take-over"), lock.held(workdir):
        pass
    with lock.held(workdir, take_over=True) as token:
        assert lock.read(lock.place(workdir, 0))["token"] == token


def test_that_of_another_container_may_be_alive_though_its_number_is_not(workdir):
    write(workdir, of(1, space="pid:[1]"))
    with pytest.raises(ValueError, match="--take-over"), lock.held(workdir):
        pass
    with lock.held(workdir, take_over=True):
        pass


def test_a_full_disk_leaves_no_lock_and_names_it(tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    def full(name, mode):
        Path(name).touch()
        return Full()

    monkeypatch.setattr(lock, "open", full, raising=False)
    workdir = epath.Path(tmp_path)
    with pytest.raises(OSError, match="lock-0.json: No space left"), lock.held(workdir):
        pass
    assert not list(tmp_path.iterdir())


def test_one_that_was_not_written_to_its_end_is_nobodys(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SETTLED", 0.01)
    lock.place(epath.Path(tmp_path), 0).write_text('{"host": "el')
    with lock.held(epath.Path(tmp_path)):
        pass


def test_only_one_of_several_gets_it(workdir, neighbour):
    """Threads that pass for processes: all begin at once, half of the time at a stale lock."""
    write(workdir, of(neighbour.pid, birth="another boot 123"))
    for _ in range(2):
        together, got = threading.Barrier(4), []

        def work(together=together, got=got):
            together.wait()
            try:
                with lock.held(workdir) as token:
                    got.append(token)
                    together.wait()
            except ValueError:
                together.wait()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lock, "_same", lambda a, b: a["token"] == b["token"])
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert len(got) == 1


@pytest.mark.parametrize("workdir", ["careless"], indirect=True)
def test_who_finds_the_lock_of_another_a_moment_later_gives_way(workdir, neighbour, monkeypatch):
    write(workdir, of(neighbour.pid, birth="another boot 123"))
    late = of(neighbour.pid, token="late")
    monkeypatch.setattr(lock.time, "sleep", lambda _: write(workdir, late))
    with pytest.raises(ValueError, match="stop it"), lock.held(workdir):
        pass
    assert lock.read(lock.place(workdir, 0)) == late


@pytest.mark.parametrize("where", ["_refusal", "read"])
def test_a_stale_lock_has_one_successor_however_long_another_stalls(
    tmp_path, neighbour, monkeypatch, where
):
    """One process stalls after it has seen that the lock is stale, the other takes it meanwhile."""
    workdir = epath.Path(tmp_path)
    write(workdir, of(neighbour.pid, birth="another boot 123"))
    seen, go_on, results = threading.Event(), threading.Event(), {}
    plain = getattr(lock, where)

    def stalling(*arguments):
        found = plain(*arguments)
        if threading.current_thread().name == "slow" and not seen.is_set():
            seen.set()
            go_on.wait(20)
        return found

    def work():
        try:
            with lock.held(workdir) as token:
                results[threading.current_thread().name] = token
                if threading.current_thread().name == "quick":
                    go_on.set()
                    slow.join(20)
                assert lock.read(lock.place(workdir, 0))["token"] == token
        except ValueError as error:
            results["refused"] = str(error)

    monkeypatch.setattr(lock, where, stalling)
    monkeypatch.setattr(lock, "_same", lambda a, b: a["token"] == b["token"])
    slow, quick = (threading.Thread(target=work, name=name) for name in ("slow", "quick"))
    slow.start()
    assert seen.wait(20)
    quick.start()
    for thread in (slow, quick):
        thread.join(40)
    assert set(results) == {"quick", "refused"} and "stop it" in results["refused"]
    assert not list(tmp_path.iterdir())


def test_who_dies_while_taking_over_is_succeeded_as_well(workdir, neighbour):
    write(workdir, of(neighbour.pid, birth="another boot 123"))
    claim = workdir / "lock-0-after-other.json"
    claim.write_text(json.dumps(of(neighbour.pid, token="half")))
    with pytest.raises(ValueError, match="stop it.*see lock-0-after-other"), lock.held(workdir):
        pass
    claim.write_text(json.dumps(of(neighbour.pid, birth="another boot 123", token="half")))
    with lock.held(workdir) as token:
        assert lock.read(lock.place(workdir, 0))["token"] == token
    assert not claim.exists()


@pytest.mark.parametrize("changes", [{"pid": "x"}, {"pid": -1}, {"pid": 2**70}, {"token": 3}])
def test_one_that_we_have_not_written_is_nobodys(tmp_path, changes):
    write(epath.Path(tmp_path), of(1) | changes)
    with lock.held(epath.Path(tmp_path)):
        pass


def test_a_workdir_that_was_made_for_nothing_is_removed(tmp_path):
    for left in (False, True):
        workdir = epath.Path(tmp_path / "new")
        with pytest.raises(RuntimeError), lock.held(workdir):
            if left:
                (workdir / "checkpoints").mkdir()
            raise RuntimeError
        assert workdir.exists() == left


def test_a_second_run_is_refused_in_one_line(tmp_path, capsys, neighbour):
    (tmp_path / "r.py").write_text(RECIPE)
    write(epath.Path(tmp_path / "w"), of(neighbour.pid))
    line = fails(capsys, "train", tmp_path / "r.py", "--workdir", tmp_path / "w", "--data", "none")
    assert line.startswith(f"isrrescnet: {tmp_path / 'w'} is that of process {neighbour.pid} on ")


def test_a_process_that_was_killed_leaves_a_lock_that_does_not_matter(tmp_path):
    program = f"""
from etils import epath
from isrrescnet_jax.train import lock
with lock.held(epath.Path({str(tmp_path)!r})):
    print("held", flush=True)
    input()
"""
    run = [sys.executable, "-c", program]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=str(process.pid)), lock.held(epath.Path(tmp_path)):
            pass
        process.kill()
    with lock.held(epath.Path(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())
