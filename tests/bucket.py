"""A bucket on this machine, served as S3 is."""

import contextlib
import os
import urllib.request
from collections.abc import Iterator

import pytest

ADDRESS = "s3://bucket"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Its address; other processes find it by the environment."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            patch.setenv(f"AWS_{name}", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        system = fsspec.get_filesystem_class("s3")
        system.clear_instance_cache()
        with contextlib.suppress(FileExistsError):  # of another file of tests in this process
            system().mkdir("bucket")
        yield ADDRESS
        system.clear_instance_cache()
    server.stop()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Within, our keys are those of nobody."""
    _let(0)
    try:
        yield
    finally:
        _let(10**9)


def _let(requests: int) -> None:
    """So many pass without a look at who asks."""
    address = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    text = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(address, str(requests).encode(), text))
