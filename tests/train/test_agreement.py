"""What the processes of a run tell each other before its first step."""

import dataclasses
import queue
import threading

import pytest
from etils import epath

from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import Recipe, TrainConfig, agreement, lock
from isrrescnet_jax.train.parallel import Messages

VIEW = {
    "host": "a",
    "workdir": "/w",
    "token": "1",
    "step": 5,
    "versions": "isrrescnet-jax 1, jax 1",
    "recipe": "0123456789",
    "config": {"steps": 5, "data": {"batch": 8}},
    "data": "5 images with the hash 1",
    "validation": "2 images with the hash 3",
    "refused": None,
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, None),
        ({"workdir": "/same/by/another/name"}, None),
        ({"refused": "/w is another's"}, "process 1 on b: /w is another's"),
        (
            {"token": None, "workdir": "/v", "step": None},
            "process 1 on b does not see in /v what process 0 on a wrote in /w: give a --workdir",
        ),
        ({"step": None}, "process 0 on a has /w at step 5, process 1 on b /w without a checkpoint"),
        ({"versions": "isrrescnet-jax 1, jax 2"}, "process 1 on b isrrescnet-jax 1, jax 2: inst"),
        ({"recipe": "9876543210"}, "hash 01234567, process 1 on b a recipe file with the hash 98"),
        ({"data": "4 images with the hash 2"}, "has 5 images with the hash 1, process 1 on b 4 im"),
        ({"validation": "2 images with the hash 4"}, "1 on b for validation 2 images with the h"),
        (
            {"config": {"steps": 5, "data": {"batch": 4}}},
            "data.batch is 8 in process 0 on a, 4 in process 1 on b: give all processes the same",
        ),
    ],
)
def test_what_is_not_the_same_is_named(changes, line):
    found = agreement.disagreement([VIEW, VIEW | {"host": "b"} | changes])
    assert found is None if line is None else line in found and "\n" not in found


def board():
    """Messages between threads, each of which may be read by all."""
    written, changed = {}, threading.Condition()

    def put(name, text):
        with changed:
            written[name] = text
            changed.notify_all()

    def get(name, seconds):
        with changed:
            if not changed.wait_for(lambda: name in written, seconds):
                raise TimeoutError(name)
            return written[name]

    return Messages(put, get)


def all_together(views, present, wait=20.0):
    """What `agree` gives or says in each of these processes, of as many as there are views."""
    messages, results = board(), queue.Queue()

    def one(i):
        try:
            see = lambda token: views[i] | {"token": token}  # noqa: E731
            results.put(agreement.agree(i, len(views), "t", see, messages, wait))
        except agreement.Disagreement as error:
            results.put(str(error))

    threads = [threading.Thread(target=one, args=(i,)) for i in present]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results.get() for _ in present]


def test_all_agree_or_end_with_one_line(monkeypatch):
    three = [VIEW | {"host": host} for host in "abc"]
    assert all_together(three, range(3)) == [["a", "b", "c"]] * 3
    three[2] = three[2] | {"data": "none"}
    (line,) = set(all_together(three, range(3)))
    assert "process 2 on c none: give all hosts the same images" in line
    monkeypatch.setattr(agreement, "PATIENCE", 1.0)
    missing = set(all_together(three, [0, 1], wait=0.2))
    assert missing == {f"process 2 has not come in 0 s: {agreement._START}"}
    assert all_together(three, [1], wait=0.2) == [
        f"process 0 has not come in 0 s: {agreement._START}"
    ]


def test_a_view_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "PATIENCE", 0.3)
    workdir = epath.Path(tmp_path / "w")
    recipe = Recipe(TrainConfig(data=DataConfig(hr=str(tmp_path / "none"))), text="a")
    with lock.held(workdir) as token:
        (workdir / "checkpoints" / "12").mkdir(parents=True)
        (workdir / "checkpoints" / "15.orbax-checkpoint-tmp").mkdir()
        here = agreement.view(workdir, recipe, token)
        assert (here["token"], here["step"]) == (token, 12)
        assert here["data"].endswith("none: no such folder")
        there = agreement.view(epath.Path(tmp_path / "v"), recipe, token)
    assert (there["token"], there["step"]) == (None, None)
    assert "does not see" in agreement.disagreement([here, there])
    config = dataclasses.replace(recipe.config, validation=str(tmp_path / "empty"))
    other = agreement.view(workdir, Recipe(config, text="b"), None)
    assert other["recipe"] != here["recipe"] and here["validation"] == ""
    assert "empty" in other["validation"]
