import os
import signal
import socket
import sys
from pathlib import Path

from commands import fails

from isrrescnet_jax.demo import server


def test_wrong_options_are_one_line(here, weights, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} (Address already in use)" in fails(capsys, "demo", "--port", port)
    assert "from 1 to 65535, not 99999" in fails(capsys, "demo", "--port", 99999)
    assert "--host" in fails(capsys, "demo", "--host", "256.0.0.1")
    assert "--max-megapixels" in fails(capsys, "demo", "--max-megapixels", 0)
    assert "--max-file" in fails(capsys, "demo", "--max-file", "much")
    assert "--queue" in fails(capsys, "demo", "--queue", 0)
    for names in (["none.safetensors"], ["x9"], [weights, weights]):
        fails(capsys, "demo", "--port", port, "-w", *names)


def test_without_gradio_the_extra_is_named(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in (*server._SETTINGS, "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    before = signal.getsignal(signal.SIGTERM)
    try:
        line = fails(capsys, "demo", "--port", free_port())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "pip install 'isrrescnet-jax[demo]'" in line
    assert not Path(os.environ["GRADIO_TEMP_DIR"]).exists()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
