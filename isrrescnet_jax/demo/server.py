"""Where the page is served, what it takes from strangers, and that nothing of theirs stays."""

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..messages import needed
from .page import KEPT, Answer, page
from .work import Limits, Offer, megabytes

_SWEEP = 30.0  # seconds between two looks at them
_SESSIONS = 200  # of which something is known: settings of a page, no pictures
_FORM = 65536  # bytes around a file as it is sent
_MESSAGE = 2**20  # bytes of any other request
_FILES = 20  # of the largest size, that may be there at one time
# All that the page sends. Gradio has more, such as recordings of the screen.
_POSTS = ("/upload", "/queue/join", "/cancel", "/reset")
_CLOSED = ("/gradio_api/deep_link", "/gradio_api/proxy=")  # which write files, or fetch others'
_SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def check_free(host: str, port: int) -> None:
    """Raise ValueError if nothing can listen there."""
    if not 0 < port < 65536:
        raise ValueError(f"--port must be from 1 to 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror
        raise ValueError(
            f"cannot listen on {host}, port {port} ({reason}): give another --port or --host"
        ) from None


def used(folder: Path) -> int:
    """Bytes of the files in a folder; some may go meanwhile."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(here, name)).st_size
            except OSError:
                continue
    return total


def sweep(folder: Path, age: float) -> None:
    """Remove what is in a folder for longer than `age` seconds.

    Gradio's own `delete_cache` leaves the folders, whose names are hashes of the files in them, and
    files that were sent and never used.
    """
    limit = time.time() - age
    for path in list(folder.iterdir()):
        try:
            inside = [path, *path.rglob("*")] if path.is_dir() else [path]
            if max(part.lstat().st_ctime for part in inside) > limit:
                continue
        except OSError:
            continue  # it goes as we look
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def guarded(app: Any, limits: Limits, folder: Path) -> Callable[..., Any]:
    """An ASGI app that passes on what the page needs, and nothing large.

    Gradio limits each file, but takes a thousand of them in one request.
    """

    def refusal(scope: Mapping[str, Any]) -> tuple[int, str] | None:
        path = scope["path"].rstrip("/")
        if any(closed in path for closed in _CLOSED):
            return 404, "not here"
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        if not path.endswith(_POSTS):
            return 404, "not here"
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "how long is it?"
        upload = path.endswith("/upload")
        if int(length) > (limits.file + _FORM if upload else _MESSAGE):
            return 413, f"more than {megabytes(limits.file)}"
        if upload and used(folder) + int(length) > _FILES * limits.file:
            return 503, "too many pictures are here at present: try again in some minutes"
        return None

    async def call(scope: dict[str, Any], receive: Any, send: Any) -> None:
        refused = refusal(scope) if scope["type"] == "http" else None
        if refused is None:
            await app(scope, receive, send)
            return
        status, text = refused
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    return call


async def _fetch_nothing(url: str, cache_dir: str) -> str:
    """In place of Gradio's download of an address that a visitor gives instead of a file."""
    raise needed("gradio").Error("drop a file", print_exception=False)


def serve(
    offers: Mapping[str, Offer],
    limits: Limits,
    answer: Answer,
    host: str,
    port: int,
    root: str = "",
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; then everything that visitors sent is gone.

    Args:
        root: the path below which a proxy shows the page, such as /upscale.
        ready: is given the line that says where it is.

    Raises:
        ValueError: the port is taken.
        ModuleNotFoundError: `gradio` is not installed.
    """
    check_free(host, port)
    os.environ |= _SETTINGS
    with tempfile.TemporaryDirectory(prefix="isrrescnet-demo-", ignore_cleanup_errors=True) as name:
        os.environ["GRADIO_TEMP_DIR"] = name  # read as it is imported
        folder = Path(name)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            gradio: Any = needed("gradio")
            gradio.processing_utils.async_ssrf_protected_download = _fetch_nothing
            middleware = needed("starlette.middleware").Middleware
            blocks = page(offers, limits, folder, answer)
            _, url, _ = blocks.launch(
                server_name=host,
                server_port=port,
                root_path=root or None,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                inbrowser=False,
                show_error=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                theme=gradio.themes.Default(primary_hue="indigo"),
                max_file_size=limits.file,
                state_session_capacity=_SESSIONS,
                app_kwargs={"middleware": [middleware(guarded, limits=limits, folder=folder)]},
            )
            try:
                ready(f"{url} (Ctrl-C ends it)")
                while True:
                    time.sleep(_SWEEP)
                    sweep(folder, KEPT)
            finally:
                blocks.close(verbose=False)
        except KeyboardInterrupt:
            return
