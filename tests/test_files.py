"""Files that appear whole or not at all."""

import os
import subprocess
import sys

import pytest

from isrrescnet_jax import files


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
def either_way(request, monkeypatch):
    """With and without the system's files that have no name."""
    if not request.param:
        monkeypatch.setattr(files, "_nameless", lambda path, replace: None)


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_appears_when_the_block_ends(tmp_path, either_way, exists):
    path = tmp_path / "folder" / "a.txt"
    if exists:
        path.parent.mkdir()
        path.write_text("old")
    with files.atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" if exists else not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_nothing_changes_when_the_block_fails(tmp_path, either_way):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="files without a name are Linux's")
def test_a_killed_process_leaves_nothing(tmp_path):
    program = (
        "import os, signal, sys; from isrrescnet_jax.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_bytes(bytes(1000)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.txt")])
    assert done.returncode < 0 and os.listdir(tmp_path) == []


def test_what_appears_meanwhile_stays_if_it_is_not_to_be_replaced(tmp_path, either_way):
    path = tmp_path / "a.txt"
    with pytest.raises(FileExistsError), files.atomic_path(path, replace=False) as temporary:
        temporary.write_text("ours")
        path.write_text("another's")
    assert path.read_text() == "another's" and os.listdir(tmp_path) == ["a.txt"]
    path.unlink()
    with files.atomic_path(path, replace=False) as temporary:
        temporary.write_text("ours")
    assert path.read_text() == "ours" and os.listdir(tmp_path) == ["a.txt"]
