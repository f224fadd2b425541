import json
import logging
import uuid

import pytest
from bucket import locked

from isrrescnet_jax import remote
from isrrescnet_jax.cluster import Manifest

fsspec = pytest.importorskip("fsspec")
known_implementations = pytest.importorskip("fsspec.registry").known_implementations


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


def test_sizes_are_of_files_in_the_folder_alone(place):
    assert remote.sizes(place) == {} and remote.sizes(remote.join(place, "nothing")) == {}
    for name in ("a", "below/b", "c"):
        remote.write(remote.join(place, name), name.encode() * 3)
    assert remote.sizes(place) == remote.sizes(f"{place}/") == {"a": 3, "c": 3}
    remote.write(remote.join(place, "b"), b"abcd")
    assert remote.sizes(place)["b"] == 4


def test_no_permission(bucket):
    pytest.importorskip("pyarrow")
    remote.write(f"{bucket}/closed/a", b"abc")
    for act in (
        lambda: remote.read(f"{bucket}/closed/a"),
        lambda: remote.sizes(f"{bucket}/closed"),
        lambda: list(remote.names(f"{bucket}/closed")),
        lambda: remote.write(f"{bucket}/closed/b", b""),
        lambda: Manifest(f"{bucket}/closed", "now").begin(),  # before anything is computed
    ):
        said = pytest.raises(PermissionError, match=f"^{bucket}/closed.*: no permission")
        with locked(), said:
            act()


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("http://127.0.0.1:9/x", OSError, "cannot be reached: Connect call failed"),
        ("s3://nobody/x", OSError, "cannot be reached: Could not connect"),
    ],
)
def test_where_nobody_answers(address, error, words, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(error, match=words) as caught:
        remote.read(address)
    assert str(caught.value).startswith(f"{address}: ") and "\n" not in str(caught.value)
    logging.getLogger("gcsfs").error("which it logs as well")
    assert not caplog.records
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_libraries_of_clouds_that_are_not_installed_are_named(monkeypatch):
    missing = {"class": "nowhere.System", "err": "Please install gcsfs to access Google Storage"}
    monkeypatch.setitem(known_implementations, "gs9", missing)
    with pytest.raises(ValueError, match="^gs9://bucket/x: Please install gcsfs.*pip install"):
        remote.read("gs9://bucket/x")
