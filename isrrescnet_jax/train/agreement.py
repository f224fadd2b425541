"""Before the first step: the workdir is ours alone, and all processes see the same.

Every process tells process 0 what it sees, over JAX's coordination service, which has time limits;
process 0 compares, and all of them go on or end with the same line.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath

from .. import __version__
from ..data import folder_inventory, inventory
from ..messages import one_line
from ..supervision import WAIT, last_checkpoint, tell
from ..trained import digest
from . import lock, parallel
from .checkpoint import absolute, as_dict, differences
from .config import Recipe

PATIENCE = 10.0  # seconds in which a network file system shows what another host has written


class Disagreement(ValueError):
    """What the processes of a run see is not the same; all of them raise this."""


@contextlib.contextmanager
def opened(
    workdir: epath.Path, recipe: Recipe, take_over: bool = False, wait: float = WAIT
) -> Iterator[None]:
    """Hold the lock of the workdir, which all processes have found to be the same.

    Args:
        workdir: of the run.
        recipe: of this process.
        take_over: see `lock.held`.
        wait: seconds for the slowest process to come here.

    Raises:
        Disagreement: the processes do not see the same, or one has not come.
        ValueError: another run has the workdir.
        OSError: it cannot be written to.
    """
    this, token, refused = jax.process_index(), None, None
    with contextlib.ExitStack() as stack:
        try:
            token = stack.enter_context(lock.held(workdir, this, take_over))
        except (ValueError, OSError) as error:
            refused = error
        if jax.process_count() > 1:
            reason = None if refused is None else one_line(refused)
            see = lambda token: view(workdir, recipe, token) | {"refused": reason}  # noqa: E731
            tell(hosts=agree(this, jax.process_count(), token, see, parallel.messages(), wait))
        if refused is not None:
            raise refused
        tell(workdir=os.fspath(absolute(workdir)), process=this)
        yield


def view(workdir: epath.Path, recipe: Recipe, token: str | None) -> dict[str, Any]:
    """What this process sees, as plain JSON values.

    Args:
        token: that of process 0, which is waited for a little in its lock.
    """
    path, until = lock.place(workdir, 0), time.monotonic() + PATIENCE
    while (found := (lock.read(path) or {}).get("token")) != token and time.monotonic() < until:
        time.sleep(0.2)
    config = recipe.config
    return {
        "host": socket.gethostname(),
        "workdir": os.fspath(absolute(workdir)),
        "token": found,
        "step": last_checkpoint(workdir),
        "versions": f"isrrescnet-jax {__version__}, jax {jax.__version__}",
        "recipe": digest(recipe.text),
        "config": as_dict(recipe.config),
        "data": _data(recipe.examples, lambda: inventory(config.data)),
        "validation": _data(
            recipe.held_out,
            lambda: folder_inventory(config.validation) if config.validation else "",
        ),
    }


def _data(own: Any, given: Callable[[], str]) -> str:
    """What a recipe's own examples are, or else the images that are given."""
    try:
        return given() if own is None else f"{len(own)} examples"
    except (ValueError, OSError) as error:
        return one_line(error)


def disagreement(views: list[dict[str, Any]]) -> str | None:
    """The first thing, in the order of importance, that is not the same in all; None if all is.

    >>> a = {"host": "a", "workdir": "/w", "token": "1", "step": 5, "versions": "jax 1"}
    >>> b = a | {"recipe": "", "config": {}, "data": "5 images", "validation": ""}
    >>> disagreement([b, b | {"host": "b", "versions": "jax 2"}])
    'process 0 on a has jax 1, process 1 on b jax 2: install the same everywhere'
    """

    def who(i: int) -> str:
        return f"process {i} on {views[i]['host']}"

    first = views[0]
    for i, other in enumerate(views):
        if other.get("refused"):
            return f"{who(i)}: {other['refused']}"
    for i, other in enumerate(views):
        if other["token"] != first["token"] or first["token"] is None:
            return (
                f"{who(i)} does not see in {other['workdir']} what {who(0)} wrote in "
                f"{first['workdir']}: give a --workdir that all hosts share, or gs://"
            )
    kinds: dict[str, Callable[[Any], str]] = {
        "step": lambda step: f"{first['workdir']} {_at(step)}",
        "versions": str,
        "recipe": lambda text: f"a recipe file with the hash {text[:8]}",
        "data": str,
        "validation": "for validation {}".format,
    }
    advice = {
        "step": "wait until the file system shows the same everywhere",
        "versions": "install the same everywhere",
        "recipe": "copy one to all hosts",
        "data": "give all hosts the same images",
        "validation": "give all hosts the same images",
    }
    for name, shown in kinds.items():
        for i, other in enumerate(views):
            if other[name] != first[name]:
                pair = f"{who(0)} has {shown(first[name])}, {who(i)} {shown(other[name])}"
                return f"{pair}: {advice[name]}"
    for i, other in enumerate(views):
        for name, (a, b) in differences(first["config"], other["config"]).items():
            pair = f"{name} is {a} in {who(0)}, {b} in {who(i)}"
            return f"{pair}: give all processes the same options"
    return None


def _at(step: int | None) -> str:
    return "without a checkpoint" if step is None else f"at step {step}"


def agree(
    this: int,
    count: int,
    token: str | None,
    see: Callable[[str | None], dict[str, Any]],
    messages: parallel.Messages,
    wait: float = WAIT,
) -> list[str]:
    """The hosts of all processes, if these see the same.

    Args:
        this, count: which process of how many.
        token: of the lock of this one, if it has one.
        see: what this process sees, given the token of process 0.
        messages: between the processes.
        wait: seconds for the slowest of them.

    Raises:
        Disagreement: it is not the same, or a process has not come.
    """
    if this == 0:
        messages.put("token", token or "")
    try:
        token = messages.get("token", wait) or None
        messages.put(f"view/{this}", json.dumps(see(token)))
        if this == 0:
            messages.put("verdict", json.dumps(_verdict(count, messages, wait)))
        # Process 0 has waited for the others, and they for their file system.
        reason, hosts = json.loads(messages.get("verdict", wait + 3 * PATIENCE))
    except TimeoutError:
        raise Disagreement(f"process 0 has not come in {wait:.0f} s: {_START}") from None
    if reason:
        raise Disagreement(reason)
    return hosts


_START = "start all processes, or give them longer to --wait for each other"


def _verdict(count: int, messages: parallel.Messages, wait: float) -> tuple[str | None, list[str]]:
    """Why the run cannot begin, if so, and the hosts."""
    views, until = [], time.monotonic() + wait
    for i in range(count):
        try:
            view = messages.get(f"view/{i}", max(until - time.monotonic(), 1))
        except TimeoutError:
            return f"process {i} has not come in {wait:.0f} s: {_START}", []
        views.append(json.loads(view))
    return disagreement(views), [view["host"] for view in views]
