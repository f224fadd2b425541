"""Weights in repositories of the Hugging Face hub: their names, and how files come and go.

A name is hf://user/name, hf://user/name@revision or either with /file behind, as `huggingface_hub`
itself and all that reads through fsspec write it. Without hf:// a name could be a path as well, and
nothing should reach for the network because a folder is not there. A revision is a branch, a tag or
a commit; with a whole commit (40 digits) a file that is in the cache is taken without asking.

The cache, HF_HUB_CACHE, HF_HUB_OFFLINE=1 and HF_TOKEN are those of `huggingface_hub`. What is read
is a .safetensors file, which cannot run code.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

from .messages import needed

FILE = "model.safetensors"  # unless the name says another
_PART = r"[\w.-]+"
_NAME = re.compile(rf"hf://({_PART}/{_PART})(?:@([^@\s/]+))?(?:/([^@\s]+\.safetensors))?")


def is_name(name: str | os.PathLike) -> bool:
    """Whether this means a repository of the hub.

    >>> is_name("hf://user/x4"), is_name("user/x4"), is_name(Path("hf://user/x4"))
    (True, False, False)
    """
    return isinstance(name, str) and name.startswith("hf://")


def parse(name: str) -> tuple[str, str | None, str]:
    """(repository, revision or None, file) of a name.

    >>> parse("hf://user/nets@v1.0/x4.safetensors")
    ('user/nets', 'v1.0', 'x4.safetensors')
    >>> parse("hf://user/x4")
    ('user/x4', None, 'model.safetensors')

    Raises:
        ValueError: it is not like this.
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name:
        raise ValueError(
            f"{name}: a name of the hub is hf://user/name[@revision][/file.safetensors]"
        )
    return match[1], match[2], match[3] or FILE


def fetch(name: Any) -> Path:
    """The file of a name, in the hub's cache.

    Raises:
        ValueError: not a name, or it cannot be had; the message begins with the name.
        ModuleNotFoundError: `huggingface_hub` is not installed.
    """
    repository, revision, file = parse(name)
    download = needed("huggingface_hub").hf_hub_download  # which sets its logger up
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # of each attempt; what is raised says it
    try:
        return Path(download(repository, file, revision=revision))
    except Exception as error:  # of two HTTP libraries, depending on the release
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{name}: {reason[0]}") from None
    finally:
        logger.setLevel(level)


def upload(
    repository: str,
    files: dict[str, bytes],
    message: str,
    *,
    branch: str | None = None,
    private: bool = False,
    api: Any = None,
) -> str:
    """Put files into a repository, which is made if it is not there, in one commit.

    Args:
        api: a `huggingface_hub.HfApi`, which knows the token; by default one with that of the user.

    Returns:
        The commit.
    """
    hub = needed("huggingface_hub")
    api = hub.HfApi() if api is None else api
    api.create_repo(repository, private=private, exist_ok=True)
    operations = [hub.CommitOperationAdd(path, data) for path, data in files.items()]
    done = api.create_commit(repository, operations, commit_message=message, revision=branch)
    return done.oid
