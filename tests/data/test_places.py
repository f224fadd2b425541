import logging

import fsspec
import pytest
from bucket import bucket, locked  # noqa: F401
from fsspec.registry import known_implementations

from isrrescnet_jax.data import places


@pytest.fixture(params=["folder", "file://", "memory://", "s3://"])
def place(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "there")
    if request.param == "s3://":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return f"{request.param}{tmp_path}/there"


def test_files_are_written_listed_and_read(place):
    assert places.sizes(place) == {}
    places.write(place, "a", b"abc")
    places.write(f"{place}/below", "b", b"b")
    places.write(f"{place}/", "c", b"")
    assert places.sizes(place) == places.sizes(f"{place}/") == {"a": 3, "c": 0}
    assert places.read(place, "a") == b"abc"


def test_nothing_is_overwritten(place):
    places.write(place, "a", b"abc")
    with pytest.raises(FileExistsError, match=f"^{place}/a: already there$"):
        places.write(place, "a", b"other")
    assert places.read(place, "a") == b"abc"


def test_what_is_not_there_is_named(place):
    with pytest.raises(FileNotFoundError, match=f"^{place}/a: not there$"):
        places.read(place, "a")


def test_files_that_appeared_since_are_seen(place):
    places.write(place, "a", b"abc")
    assert places.sizes(place) == {"a": 3}
    places.write(place, "b", b"abcd")
    assert places.sizes(place) == {"a": 3, "b": 4}


def test_no_permission(bucket):  # noqa: F811
    places.write(f"{bucket}/closed", "a", b"abc")
    for act in (
        lambda: places.read(f"{bucket}/closed", "a"),
        lambda: places.sizes(f"{bucket}/closed"),
        lambda: places.write(f"{bucket}/closed", "b", b""),
    ):
        said = pytest.raises(PermissionError, match="^s3://bucket/closed.*: no permission")
        with locked(), said:
            act()


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("s4://bucket/x", ValueError, "Protocol not known: s4"),
        ("http://127.0.0.1:9/x", OSError, "cannot be reached: Connect call failed"),
        ("s3://nobody", OSError, "cannot be reached: Could not connect"),
    ],
)
def test_what_cannot_be_reached(address, error, words, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(error, match=words) as caught:
        places.read(address, "a")
    assert str(caught.value).startswith(f"{address}/a: ") and "\n" not in str(caught.value)
    logging.getLogger("gcsfs").error("which it logs as well")
    assert not caplog.records
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_libraries_of_clouds_that_are_not_installed_are_named(monkeypatch):
    missing = {"class": "nowhere.System", "err": "Please install gcsfs to access Google Storage"}
    monkeypatch.setitem(known_implementations, "gs9", missing)
    with pytest.raises(ValueError, match="^gs9://bucket/x/a: Please install gcsfs"):
        places.read("gs9://bucket/x", "a")
