"""The demo in a browser, as visitors have it; a headless Chromium of the system."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from commands import run
from conftest import photo
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra demo")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
demo = pytest.importorskip("experiments.demo_screenshot")

pytestmark = pytest.mark.skipif(demo.CHROMIUM is None, reason="needs chromium: apt-get install it")
FILE = 60_000  # bytes that the demo takes
MEGAPIXELS = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the demo has its temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(weights, folder):
    """Of a running demo, which leaves nothing when it ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("ISRRESCNET_CACHE", "")
        limits = ("--max-file", FILE, "--max-megapixels", MEGAPIXELS)
        with demo.served("-w", weights, *limits) as address:
            yield address
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def chromium(address):
    with demo.browser() as chromium:
        yield chromium


@pytest.fixture
def visitor(chromium, address):
    """Opens the page in a browser of its own, with the small weights chosen."""
    contexts, foreign, broken = [], [], []

    def opened():
        contexts.append(chromium.new_context())
        page = contexts[-1].new_page()
        page.set_default_timeout(demo.PATIENCE)
        page.on("request", lambda request: foreign.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(address)
        page.get_by_label("×2").check()
        demo.choose(page, "small", 3)
        return page

    yield opened
    for context in contexts:
        context.close()
    ours = (address, "data:", "blob:")
    assert foreign and not [url for url in foreign if not url.startswith(ours)]
    assert not broken


def downloaded(page, path: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_text("Download PNG").click()
    download.value.save_as(path)
    assert download.value.suggested_filename == path.name
    return path


def saved(image: np.ndarray, path: Path) -> Path:
    Image.fromarray(image).save(path)
    return path


def refusal(page) -> str:
    """What the page says, which is taken away then."""
    toast = page.get_by_test_id("toast-body")
    text = toast.inner_text()
    page.get_by_test_id("toast-close").click()
    toast.wait_for(state="detached")
    return text


def test_two_visitors_get_what_the_command_gives(visitor, weights, tmp_path):
    alpha = np.full((20, 24), 255, np.uint8)
    alpha[5:, 9:] = 0
    images = {"first": photo(16, 20)[0], "second": np.dstack([photo(20, 24, seed=1)[0], alpha])}
    pages = {name: visitor() for name in images}
    for name, page in pages.items():
        demo.drop(page, saved(images[name], tmp_path / f"{name}.png"))
    pages["second"].get_by_label("number input for Iterations").fill("2")
    pages["second"].get_by_label("Estimate the noise level").uncheck()
    pages["second"].get_by_label("number input for Noise level").fill("4.5")
    pages["second"].get_by_text("Larger by").click()  # leaves the field
    for page in pages.values():  # both wait at the same time
        page.get_by_role("button", name="Upscale").click()
    options = {"first": [], "second": ["--iterations", 2, "--noise", 4.5]}
    for name, page in pages.items():
        page.get_by_text("(RMS)").wait_for()
        (tmp_path / "got").mkdir(exist_ok=True)
        got = downloaded(page, tmp_path / "got" / f"{name}.png")
        source, out = tmp_path / f"{name}.png", tmp_path / "command" / f"{name}.png"
        assert run("upscale", source, "-w", weights, "-o", out, *options[name]) == 0
        np.testing.assert_array_equal(np.asarray(Image.open(got)), np.asarray(Image.open(out)))
        assert got.read_bytes() == out.read_bytes()


def test_sliders_show_both_pictures_and_all_iterates(visitor, tmp_path):
    page = visitor()
    demo.drop(page, saved(photo(16, 20)[0], tmp_path / "photo.png"))
    demo.upscale(page)

    def shown(part: str) -> list[str]:
        pictures = page.locator(f"#{part} img").all()
        return sorted(Path(picture.get_attribute("src")).name for picture in pictures)

    assert shown("compared") == ["bicubic.png", "photo.png"]
    for k in (3, 0, 2):
        page.get_by_label("number input for Iteration k").fill(str(k))
        page.locator(f"#residual img[src*='residual_{k}.png']").wait_for()
        assert shown("iterate") == [f"iterate_{k}.png"]


def test_a_result_that_is_gone_is_told(visitor, folder, tmp_path):
    page = visitor()
    demo.drop(page, saved(photo(16, 20)[0], tmp_path / "photo.png"))
    demo.upscale(page)
    (files,) = folder.glob("isrrescnet-demo-*")
    # Gradio makes no copies, which would not count as results.
    pictures = [*files.rglob("bicubic.png"), *files.rglob("iterate_*.png")]
    assert pictures and all(path.is_relative_to(files / "results") for path in pictures)
    gone = page.get_by_text("This result is no longer here")
    step = page.get_by_label("number input for Iteration k")
    step.fill("1")
    page.locator("#residual img[src*='residual_1.png']").wait_for()
    page.wait_for_timeout(200)
    assert not gone.count()
    for result in (files / "results").iterdir():
        shutil.rmtree(result)
    step.fill("2")
    gone.wait_for()
    demo.upscale(page)  # what was sent is still there
    assert not gone.count()


def test_the_noise_level_is_asked_for_where_it_acts(visitor):
    page = visitor()
    box = page.get_by_label("Estimate the noise level")
    level = page.get_by_label("number input for Noise level")
    box.uncheck()
    level.wait_for()
    page.get_by_label("×4").check()  # takes weights of one iteration
    for control in (box, level):
        control.wait_for(state="hidden")
    demo.choose(page, "x4_k10", 10)
    level.wait_for()
    box.check()
    level.wait_for(state="hidden")


def test_what_is_no_picture_too_large_or_too_much_is_one_line(visitor, folder, tmp_path):
    page = visitor()
    page.get_by_role("button", name="Upscale").click()
    assert "drop a picture first" in refusal(page)
    (tmp_path / "spoiled.png").write_bytes(b"no picture")
    demo.drop(page, tmp_path / "spoiled.png")
    page.get_by_role("button", name="Upscale").click()
    text = refusal(page)
    assert "spoiled.png: not an image that can be read" in text
    page.get_by_label("Remove Image").click()
    demo.drop(page, saved(np.zeros((200, 200), np.uint8), tmp_path / "many.png"))
    page.get_by_role("button", name="Upscale").click()
    line = refusal(page)
    assert "200x200 pixels at scale 2 in 3 iterations are 0.5 megapixels" in line
    page.get_by_label("Remove Image").click()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    huge = saved(noise, tmp_path / "huge.png")
    assert os.path.getsize(huge) > FILE
    page.set_input_files("input[type=file]", huge)
    text += refusal(page)
    assert "maximum allowed size" in text and "Traceback" not in text + line
    assert str(folder) not in text + line and "/tmp" not in text + line
    assert not list(folder.rglob("huge.png"))
    demo.drop(page, saved(photo(16, 20)[0], tmp_path / "good.png"))  # and all is well
    demo.upscale(page)


def test_who_goes_around_the_page_gets_no_further(chromium, address):
    listening = socket.create_server(("127.0.0.1", 0))
    with chromium.new_context(base_url=address) as context, listening as other:
        ask = context.request
        (run_id,) = (
            dependency["id"]
            for dependency in ask.get("config").json()["dependencies"]
            if len(dependency["inputs"]) == 6
        )

        def answered(path: str) -> str:
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            data = [file, 2, "small", 3, True, 2]
            body = {"data": data, "fn_index": run_id, "session_hash": str(hash(path))}
            assert ask.post("gradio_api/queue/join", data=body).ok
            return ask.get(f"gradio_api/queue/data?session_hash={body['session_hash']}").text()

        secret = str(Path(__file__).parents[1] / "examples" / "astronaut.png")
        for path in (secret, f"http://localhost:{other.getsockname()[1]}/a.png"):
            said = answered(path)
            assert ("drop a file" in said) == path.startswith("http")
            assert '"success":false' in said and path not in said and "Traceback" not in said
        other.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.accept()
        assert ask.get(f"gradio_api/file={secret}").status == 403
        assert ask.post("gradio_api/run/predict", data={"data": []}).status == 404
        file = {"mimeType": "image/png", "buffer": bytes(FILE // 2)}
        many = {str(i): file | {"name": f"{i}.png"} for i in range(9)}
        assert ask.post("gradio_api/upload", multipart=many).status == 413
