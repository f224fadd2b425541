"""Files that appear whole or not at all."""

import os
import stat
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


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, either_way):
    (tmp_path / "folder").mkdir()
    for old in ("old", None):
        target, link = tmp_path / "folder" / f"a{old}.txt", tmp_path / f"{old}.txt"
        link.symlink_to(target)
        if old:
            target.write_text(old)
        with files.atomic_path(link) as temporary:
            temporary.write_text("new")
        assert link.is_symlink() and target.read_text() == "new"
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="round"), files.atomic_path(tmp_path / "round"):
        pass
    assert (tmp_path / "round").is_symlink()


def test_what_is_no_file_is_written_into(tmp_path, either_way):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(FileExistsError), files.atomic_path(pipe, replace=False):
        pass
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.check_possible(pipe)
    with files.atomic_path(pipe) as temporary, open(temporary, "w+b") as file:
        file.write(b"all")
    assert os.read(reader, 10) == b"all" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        open(device).close()
    except PermissionError:
        pytest.skip("this user cannot make devices here")
    with files.atomic_path(device) as temporary:
        temporary.write_text("gone")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["null", "pipe.png"]


def test_our_own_standard_output_is_written_into(tmp_path):
    program = (
        "import sys; from isrrescnet_jax.files import atomic_path\n"
        "print('before', flush=True)\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('between ')\n"
        "print('after')"
    )
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    for name in ("stdout", "out.txt"):
        with open(tmp_path / "out.txt", "w") as out:
            command = [sys.executable, "-c", program, str(tmp_path / name)]
            subprocess.run(command, stdout=out, check=True)
        assert (tmp_path / "out.txt").read_text() == "before\nbetween after\n"
    assert sorted(os.listdir(tmp_path)) == ["out.txt", "stdout"]


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path, either_way):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for name in ("folder", "link", "file/a.txt", "file/b/a.txt", "x" * 300):
        path = tmp_path / name
        with pytest.raises(OSError, match=r"\[Errno") as error, files.atomic_path(path) as new:
            new.write_text("new")
        assert error.value.filename == str(path)
        if name != "x" * 300:
            with pytest.raises(OSError, match=r"\[Errno") as error:
                files.check_possible(path)
            assert error.value.filename == str(path)
    files.check_possible(tmp_path / "new" / "folder" / "a.txt")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link"]
    assert not os.listdir(tmp_path / "folder")
