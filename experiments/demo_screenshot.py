"""The picture of the demo in docs/howto/demo.md, and the demo in a browser for its tests.

    python -m experiments.pictures --only docs/pictures/demo.png

A headless Chromium upscales examples/astronaut.png with ten iterations. It needs
`apt-get install chromium`, and `pip install '.[demo]' playwright pillow`.
"""

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTH, COLORS = 740, 128  # few enough for a file of less than 150 kB
PATIENCE = 120_000  # milliseconds, for the slowest machine


@contextlib.contextmanager
def served(*options: object) -> Iterator[str]:
    """The address of a demo in a process of its own, which is ended by SIGTERM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "isrrescnet_jax", "demo", "--port", port, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("http"):
            raise RuntimeError(f"the demo does not start: {line}")
        yield line.split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            raise RuntimeError(f"the demo ended with code {process.returncode}")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, that of the system."""
    with sync_playwright() as playwright:
        # Its sandbox does not work for root, and the only page is ours.
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}
        running = playwright.chromium.launch(**options)
        try:
            yield running
        finally:
            running.close()


def drop(page: Page, file: Path) -> None:
    """Give a file to the page, and wait until the page has it."""
    page.set_input_files("input[type=file]", file)
    page.get_by_label("Remove Image").wait_for(timeout=PATIENCE)


def choose(page: Page, weights: str, iterations: int) -> None:
    """Take weights from the list, and wait until the page knows how many iterations they have."""
    page.get_by_label("Weights").click()
    page.get_by_role("option", name=weights).click()
    count = page.get_by_label("number input for Iterations")
    count.wait_for(timeout=PATIENCE)
    expect(count).to_have_value(str(iterations))


def upscale(page: Page) -> None:
    """Press the button, and wait for the result."""
    page.get_by_role("button", name="Upscale").click()
    page.get_by_text("(RMS)").wait_for(timeout=PATIENCE)


def screenshot(path: Path) -> None:
    """The page with a result, as a PNG."""
    with served() as address, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 1180})
        page.goto(address)
        drop(page, ROOT / "examples" / "astronaut.png")
        choose(page, "x4_k10", 10)
        upscale(page)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1000)  # pictures fade in
        with Image.open(io.BytesIO(page.screenshot(full_page=True))) as image:
            small = image.convert("RGB").resize((WIDTH, round(WIDTH * image.height / image.width)))
        small.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
