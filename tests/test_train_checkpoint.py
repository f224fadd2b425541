from pathlib import Path

import pytest

from isrrescnet_jax.train.checkpoint import absolute, differences


def test_a_bucket_is_not_taken_for_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(absolute("gs://bucket/run")) == "gs://bucket/run"
    assert Path(absolute("run")) == tmp_path / "run"
    assert Path(absolute(tmp_path / "run")) == tmp_path / "run"


@pytest.mark.parametrize(
    ("old", "new", "phrases"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}, []),
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, ["b.c was 2, is 3"]),
        ({"a": 1}, {"b": 2}, ["a was 1, is None", "b was None, is 2"]),
    ],
)
def test_differences_are_named(old, new, phrases):
    assert differences(old, new) == phrases
