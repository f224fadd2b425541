"""Where the page is served, what it takes from strangers, and that nothing of theirs stays."""

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..messages import needed
from . import disk
from .page import KEPT, Answer, page
from .work import Limits, Offer, megabytes

_SWEEP = 30.0  # seconds between two looks at them
_SESSIONS = 200  # of which something is known: settings of a page, no pictures
_FORM = 65536  # bytes around a file as it is sent
_MESSAGE = 2**20  # bytes of any other request
_PATIENCE = 300.0  # seconds that sending a file may take, which holds room for it
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


def waited_for(blocks: Any) -> list[Path]:
    """The files of visitors who wait for their turn, by the names that browsers gave."""
    queues = list(blocks._queue.event_queue_per_concurrency_id.values())
    bodies = [event.data for queue in queues for event in list(queue.queue)]
    sent = [part for body in bodies if body is not None for part in body.data]
    return [Path(part["path"]) for part in sent if isinstance(part, dict) and part.get("path")]


def guarded(app: Any, limits: Limits, folder: Path) -> Callable[..., Any]:
    """An ASGI app that passes on what the page needs, and nothing large.

    Gradio limits each file, but takes a thousand of them in one request.
    """

    arriving = 0  # bytes of files that are being sent

    def length(scope: Mapping[str, Any]) -> bytes:
        return dict(scope["headers"]).get(b"content-length", b"")

    def is_upload(scope: Mapping[str, Any]) -> bool:
        return scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload")

    def refusal(scope: Mapping[str, Any]) -> tuple[int, str] | None:
        path = scope["path"].rstrip("/")
        if any(closed in path for closed in _CLOSED):
            return 404, "not here"
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        if not path.endswith(_POSTS):
            return 404, "not here"
        if not length(scope).isdigit():
            return 411, "how long is it?"
        size, upload = int(length(scope)), is_upload(scope)
        if size > (limits.file + _FORM if upload else _MESSAGE):
            return 413, f"more than {megabytes(limits.file)}"
        if upload and disk.sent(folder) + arriving + size > limits.uploads:
            return 503, "too many pictures are here at present: try again in some minutes"
        return None

    async def call(scope: dict[str, Any], receive: Any, send: Any) -> None:
        nonlocal arriving
        refused = refusal(scope) if scope["type"] == "http" else None
        if refused is None and not (scope["type"] == "http" and is_upload(scope)):
            await app(scope, receive, send)
            return
        if refused is None:
            size = int(length(scope))
            arriving += size
            try:
                async with asyncio.timeout(_PATIENCE):
                    await app(scope, receive, send)
                return
            except TimeoutError:
                refused = 408, "this takes too long: send a smaller file"
            finally:
                arriving -= size
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
                    disk.sweep(folder, KEPT, waited_for(blocks))
            finally:
                blocks.close(verbose=False)
        except KeyboardInterrupt:
            return
