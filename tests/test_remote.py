import json
import uuid

import pytest

from isrrescnet_jax import remote

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{uuid.uuid4()}"
    return str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4()}"


def test_files_come_and_go(place):
    assert list(remote.names(remote.join(place, "nothing"))) == []
    for name in ("b.png", "a.PNG", "deep/c.png", "note.txt", ".hidden.png"):
        assert remote.write(remote.join(place, name), name.encode())
    assert remote.read(remote.join(place, "deep/c.png")) == b"deep/c.png"
    with remote.opened(remote.join(place, "b.png")) as file:
        file.seek(1)
        assert file.read() == b".png"
    assert not remote.write(remote.join(place, "b.png"), b"other", replace=False)
    assert remote.read(remote.join(place, "b.png")) == b"b.png"
    assert remote.write(remote.join(place, "b.png"), b"other")
    assert remote.read(remote.join(place, "b.png")) == b"other"
    every = {"b.png", "a.PNG", "deep/c.png", "note.txt", ".hidden.png"}
    assert set(remote.names(place)) == every
    assert set(remote.names(place, recursive=False)) == every - {"deep/c.png"}


def test_an_address_stands_for_files(place):
    for name in ("b.png", "a.PNG", "deep/c.png", "note.txt", ".hidden.png"):
        remote.write(remote.join(place, name), b"1")
    found = lambda name, recursive=False: [  # noqa: E731
        address.removeprefix(f"{place}/")
        for address in remote.find(remote.join(place, name) if name else place, [".png"], recursive)
    ]
    assert found("") == ["a.PNG", "b.png"]
    assert found("", recursive=True) == ["a.PNG", "b.png", "deep/c.png"]
    assert found("note.txt") == ["note.txt"]
    assert [name.rpartition("/")[2] for name in found("b*")] == ["b.png"]
    for nothing in ("c.png", "x*", "nowhere"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            found(nothing)


def test_what_is_written_is_seen_at_once(place):
    assert not list(remote.names(place))
    remote.write(remote.join(place, "a.png"), b"1")
    assert list(remote.names(place)) == ["a.png"] and remote.is_file(remote.join(place, "a.png"))


def test_what_cannot_be_reached(monkeypatch, tmp_path, bucket):
    remote.check(f"{bucket}/new/folder")
    remote.check(tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="^s3://nobodys/x: "):
        remote.check("s3://nobodys/x")
    with pytest.raises(FileNotFoundError, match=f"^{bucket}/none.png: no such file"):
        remote.read(f"{bucket}/none.png")
    with pytest.raises(ValueError, match="^carrier://pigeon: .*rotocol"):
        remote.read("carrier://pigeon")
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="not a folder"):
        remote.check(tmp_path / "file")

    class Refusing:
        def cat_file(self, path):
            raise PermissionError("Access Denied")

    monkeypatch.setattr(remote, "_filesystem", lambda address: (Refusing(), "photos/a"))
    with pytest.raises(PermissionError, match=f"^{bucket}/a: no permission: Access Denied$"):
        remote.read(f"{bucket}/a")
