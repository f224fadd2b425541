"""What the demo takes from strangers, and that nothing of theirs stays."""

import asyncio
from pathlib import Path

import pytest

from isrrescnet_jax.demo import disk, page, server
from isrrescnet_jax.demo.work import Limits, Offer

LIMITS = Limits(megapixels=0.1, file=2**20, queue=3)


def post(guard, path: str, length: object = None, method: str = "POST") -> int:
    """What the guard says."""
    return asyncio.run(posted(guard, path, length, method))


async def posted(guard, path: str, length: object, method: str = "POST") -> int:
    sent = []

    async def send(message):
        sent.append(message)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    await guard(scope, None, send)
    return sent[0]["status"]


async def behind(scope, receive, send) -> None:
    """The app that is guarded."""
    await send({"status": 200})


UPLOAD = "/gradio_api/upload"


def test_what_strangers_may_send(tmp_path):
    guard = server.guarded(behind, LIMITS, tmp_path)
    assert post(guard, "/", method="GET") == 200
    assert post(guard, UPLOAD, 2**20) == 200
    assert post(guard, UPLOAD, 2**21) == 413
    assert post(guard, UPLOAD) == post(guard, UPLOAD, -1) == 411
    assert post(guard, "/gradio_api/queue/join", 1000) == 200
    assert post(guard, "/gradio_api/queue/join", 2**21) == 413
    for path in ("/gradio_api/process_recording", "/gradio_api/run/predict", "/login"):
        assert post(guard, path, 10) == 404
    for path in ("/gradio_api/proxy=https://x.org/", "/gradio_api/deep_link"):
        assert post(guard, path, method="GET") == 404


def test_results_leave_room_for_what_is_sent(tmp_path):
    guard = server.guarded(behind, LIMITS, tmp_path)
    assert LIMITS.uploads == (LIMITS.queue + 4) * LIMITS.file
    result = disk.room_for(LIMITS.uploads, tmp_path, LIMITS.uploads) / "x.png"
    result.write_bytes(bytes(LIMITS.uploads))
    assert post(guard, UPLOAD, 1000) == 200
    (tmp_path / "full").write_bytes(bytes(LIMITS.uploads))
    assert post(guard, UPLOAD, 1000) == 503


def test_what_is_on_its_way_counts(tmp_path, monkeypatch):
    async def arrive() -> list[int]:
        complete = asyncio.Event()

        async def slow(scope, receive, send):
            await complete.wait()
            await send({"status": 200})

        guard = server.guarded(slow, LIMITS, tmp_path)

        async def many(number: int) -> list[int]:
            coming = [posted(guard, UPLOAD, 2**20) for _ in range(number)]
            waiting = asyncio.gather(*coming)
            await asyncio.sleep(0)
            complete.set()
            return await waiting

        first = await many(80)
        complete.clear()
        second = await many(1)  # all have arrived
        complete.clear()
        monkeypatch.setattr(server, "_PATIENCE", 0.001)
        late = [await posted(guard, UPLOAD, LIMITS.file) for _ in range(9)]
        return [*map(first.count, (200, 503)), *second, *set(late)]

    assert asyncio.run(arrive()) == [7, 73, 200, 408]


def test_what_is_old_goes_with_its_folder_unless_somebody_waits_for_it(tmp_path):
    for name in ("a/photo.png", "b/photo.png", "c", "results/d/photo.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"data")
    disk.sweep(tmp_path, 600)
    assert disk.used(tmp_path) == 16 and disk.sent(tmp_path) == 12
    disk.sweep(tmp_path, -1, [tmp_path / "b" / "photo.png", Path("/etc/passwd")])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "b/photo.png"]
    disk.sweep(tmp_path, -1)
    assert [path.name for path in tmp_path.rglob("*")] == ["results"]


def test_whose_files_are_waited_for(tmp_path):
    pytest.importorskip("gradio")
    from gradio.data_classes import PredictBodyInternal

    blocks = page.page({"x2": Offer(2, 1)}, LIMITS, tmp_path, lambda *_: None)
    (run,) = (fn for fn in blocks.fns.values() if fn.name == "run")
    queue = blocks._queue
    assert server.waited_for(blocks) == []

    async def waiting():
        for upload in ({"path": "/there/a.png"}, None, "x", {"path": None}):
            data = [upload, 2, "x2", 1, True, 2]
            body = PredictBodyInternal(fn_index=run._id, session_hash="s", data=data)
            await queue.push(body, None, None)

    asyncio.run(waiting())
    assert len(queue) == 3  # it is full then
    assert server.waited_for(blocks) == [Path("/there/a.png")]
