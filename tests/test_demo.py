"""The demo without a browser: what a visitor gets, is refused, and leaves behind."""

import asyncio
import dataclasses
import functools
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from commands import run
from conftest import photo
from PIL import Image, ImageCms

import isrrescnet_jax as isr
from isrrescnet_jax.cli.demo import Demo
from isrrescnet_jax.demo import disk, page, work
from isrrescnet_jax.demo.work import Limits, Offer, Wish
from isrrescnet_jax.upscaler import Upscaler

EVERYTHING = Wish("small", 2, 3)
LIMITS = Limits(megapixels=0.1, file=2**20, queue=3)
GREY = photo(9, 12)[0, ..., 0]
OPAQUE = np.full((9, 12), 255, np.uint8)
OPAQUE[3:, 4:] = 0
RGBA = np.dstack([photo(9, 12)[0], OPAQUE])
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def answer(weights, monkeypatch):
    """What the command gives to the page, for files."""
    monkeypatch.setenv("ISRRESCNET_CACHE", "")
    demo = Demo(weights=(weights,))
    offers, files = demo._offers()
    prepare = functools.partial(demo._prepared, offers, files)

    def answered(path, wish=EVERYTHING, limits=LIMITS, told=lambda part, text: None):
        data = Path(path).read_bytes()
        name = Path(path).name
        return work.answer(data, name, wish, told, offers=offers, prepare=prepare, limits=limits)

    return answered


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), np.float32)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (photo(9, 12)[0], {"icc_profile": PROFILE, "dpi": (72, 72)}),
        (RGBA, {"icc_profile": PROFILE}),
        (GREY, {}),
        (GREY.astype(np.uint16) * 257, {}),
    ],
    ids=["RGB", "RGBA", "grey", "16 bits"],
)
def test_the_download_is_the_file_that_the_command_writes(
    answer, weights, tmp_path, image, options
):
    source = tmp_path / "photo.png"
    Image.fromarray(image).save(source, **options)
    command = ["upscale", source, "-w", weights, "--overwrite", "-o", tmp_path / "command.png"]
    result = answer(source)
    assert run(*command) == 0
    assert (tmp_path / "command.png").read_bytes() == result.picture
    result = answer(source, Wish("small", 2, 2, 4.5))
    assert run(*command, "--iterations", 2, "--noise", 4.5) == 0
    assert (tmp_path / "command.png").read_bytes() == result.picture
    assert len(result.steps) == 3 and "4.5 (given)" in result.about
    shown = pixels(result.bicubic)
    assert shown.shape[:2] == (18, 24) and (shown.ndim == 3) == (image.ndim == 3)


def test_iterates_and_residuals(answer, small, tmp_path):
    source = tmp_path / "photo.png"
    image = photo(10, 9)[0]
    Image.fromarray(image).save(source)
    told = []
    result = answer(source, told=lambda part, text: told.append((part, text)))
    solution = Upscaler(small).trace(image)
    iterates = [solution.initial, *solution.iterates]
    assert len(result.steps) == 4
    for x, step in zip(iterates, result.steps, strict=True):
        np.testing.assert_allclose(pixels(step.image), np.rint(x[0]), atol=1)
        r = image - np.asarray(isr.Bicubic(2, reference=False).forward(x))[0]
        expected = np.clip(128 + result.gain * r, 0, 255).repeat(2, 0).repeat(2, 1)
        np.testing.assert_allclose(pixels(step.residual), expected, atol=1)
    np.testing.assert_array_equal(pixels(result.steps[-1].image), pixels(result.picture))
    assert [part for part, _ in told] == sorted(part for part, _ in told)
    assert [text for _, text in told if "of 3" in text] == [
        f"iteration {k} of 3" for k in (1, 2, 3)
    ]
    assert f"{solution.sigma[0]:.1f} (estimated)" in result.about and not result.note


@pytest.mark.parametrize(
    ("largest", "gain"), [(0.0, 64), (1.0, 64), (3.0, 32), (99.0, 1), (255, 1)]
)
def test_the_residual_is_amplified_as_far_as_it_can_be_seen(largest, gain):
    residual = np.full((4, 5, 3), largest, np.float32)
    assert work.amplification(residual) == gain
    assert (work.centred(0 * residual, gain) == 128).all()


def test_a_picture_that_goes_in_bands_has_no_iterates(answer, weights, tmp_path, monkeypatch):
    source = tmp_path / "photo.png"
    Image.fromarray(photo(9, 12)[0]).save(source)
    monkeypatch.setattr(Upscaler, "at_once", lambda self, h, w: False)
    result = answer(source)
    assert run("upscale", source, "-w", weights, "-o", tmp_path / "command.png") == 0
    assert result.picture == (tmp_path / "command.png").read_bytes()
    assert len(result.steps) == 1 and "noise" not in result.about


def test_of_an_animation_the_first_picture_with_a_remark(answer, tmp_path):
    frames = [Image.fromarray(image) for image in photo(9, 12, n=2)]
    frames[0].save(tmp_path / "still.png")
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    still, film = answer(tmp_path / "still.png"), answer(tmp_path / "film.png")
    assert film.note == "Of 2 frames of an animation only the first was done."
    np.testing.assert_array_equal(pixels(film.picture), pixels(still.picture))


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish("/etc/passwd", 2, 1), "weights from the list"),
        (Wish("small", 5, 1), "choose a scale"),
        (Wish("small", 4, 1), "weights for scale 2"),
        (Wish("small", 2, 4), "1 to 3 iterations"),
        (Wish("small", 2, 0), "1 to 3 iterations"),
        (Wish("small", 2, 1, float("nan")), "noise level"),
        (Wish("small", 2, 1, -1.0), "noise level"),
        (Wish("small", 2, 1, 51.0), "noise level"),
    ],
)
def test_what_is_not_on_offer_is_refused(answer, tmp_path, wish, said):
    Image.fromarray(GREY).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match=said):
        answer(tmp_path / "photo.png", wish)


def test_any_scale_where_weights_name_none():
    work.check(Wish("free", 3, 1), {"free": Offer(None, 1)})


def test_files_that_are_refused_by_their_name_alone(answer, tmp_path):
    def refused(name: str, data: bytes, **options) -> str:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError) as error:
            answer(tmp_path / name, **options)
        line = str(error.value)
        assert "\n" not in line and str(tmp_path) not in line
        return line

    assert refused("text.png", b"no picture").startswith("text.png: not an image")
    buffer = io.BytesIO()
    Image.fromarray(photo(40, 40)[0]).save(buffer, "PNG")
    assert refused("half.png", buffer.getvalue()[:900]).startswith("half.png: ")
    small = dataclasses.replace(LIMITS, file=1024)
    line = refused("big.png", buffer.getvalue(), limits=small)
    assert line == "big.png: more than 0.000977 MB"
    assert refused("empty.png", b"").startswith("empty.png: ")


def test_a_size_that_is_too_much_is_refused_before_it_is_decoded(answer, tmp_path, monkeypatch):
    Image.fromarray(photo(100, 100)[0]).save(tmp_path / "large.png")
    monkeypatch.setattr("isrrescnet_jax.images.frames.decode", None)
    with pytest.raises(ValueError, match="100x100 .* 0.1 megapixels of work.*fewer iterations"):
        answer(tmp_path / "large.png")


def test_pixels_that_are_too_many_for_pillow_name_the_limit_of_the_demo(answer, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "PNG")
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + buffer.getvalue()[24:29]
    chunk = header + struct.pack(">I", zlib.crc32(header))
    data = buffer.getvalue()
    (tmp_path / "huge.png").write_bytes(data[:12] + chunk + data[12 + len(chunk) :])
    with pytest.raises(ValueError) as error:
        answer(tmp_path / "huge.png")
    most = "this demo does at most 0.1 megapixels of work"
    assert str(error.value) == f"huge.png: too many pixels: {most}"


def test_transparency_counts_three_times_where_it_takes_three_runs(answer, tmp_path, monkeypatch):
    runs = []
    call, trace = Upscaler.__call__, Upscaler.trace
    monkeypatch.setattr(Upscaler, "__call__", lambda *a: runs.append(1) or call(*a))
    monkeypatch.setattr(Upscaler, "trace", lambda *a: runs.append(1) or trace(*a))
    pixels = 9 * 12 * 4 * 3 / 1e6
    images = {"cut out": RGBA, "opaque": RGBA | np.uint8([0, 0, 0, 255]), "RGB": RGBA[..., :3]}
    for name, number in (("cut out", 3), ("opaque", 1), ("RGB", 1)):
        path = tmp_path / f"{name}.png"
        Image.fromarray(images[name]).save(path)
        runs.clear()
        answer(path, limits=dataclasses.replace(LIMITS, megapixels=1.01 * pixels * number))
        assert len(runs) == number
        with pytest.raises(ValueError, match="megapixels of work") as error:
            answer(path, limits=dataclasses.replace(LIMITS, megapixels=0.99 * pixels * number))
        assert ("3 times for its transparency" in str(error.value)) == (number == 3)


def test_a_noise_level_is_offered_where_it_acts():
    offers, _ = Demo()._offers()
    assert [name for name, offer in offers.items() if offer.noise] == ["x2_k10", "x3_k10", "x4_k10"]


def test_a_noise_level_that_has_no_part_is_not_given(tmp_path):
    seen = []

    def prepare(wish):
        seen.append(wish.noise)
        raise ValueError("enough")

    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "PNG")
    options = {"prepare": prepare, "limits": LIMITS}
    for acts in (True, False):
        offers = {"x2": Offer(2, 1, acts)}
        with pytest.raises(ValueError, match="enough"):
            work.answer(
                buffer.getvalue(), "a", Wish("x2", 2, 1, 0.0), print, offers=offers, **options
            )
    assert seen == [0.0, "estimate"]


def desk(folder: Path, answer=None) -> page.Desk:
    step = work.Step(b"x", b"r")
    result = work.Result(b"picture", b"bicubic", (step, step), 4, "about")
    return page.Desk(folder, answer or (lambda data, name, wish, progress: result), 1000)


def asked(folder: Path, upload, scale=2, weights="small", iterations=1, estimated=True, noise=2):
    seen = []

    def answer(data, name, wish, progress):
        seen.append((data, name, wish))
        return desk(folder).answer(data, name, wish, progress)

    options = (upload, scale, weights, iterations, estimated, noise, lambda part, text: None)
    return seen, desk(folder, answer).files(*options)[1]


def test_files_that_a_visitor_gets(tmp_path):
    (tmp_path / "sent").write_bytes(b"data")
    upload = {"path": str(tmp_path / "sent"), "orig_name": "../../My <photo>.v2.jpg"}
    seen, files = asked(tmp_path, upload)
    assert seen == [(b"data", "My <photo>.v2.jpg", Wish("small", 2, 1))]
    assert files["pictures"][1].name == "My _photo_.v2.png"
    assert [path.read_bytes() for path in files["pictures"]] == [b"bicubic", b"picture"]
    assert [path.read_bytes() for path in files["iterates"]] == [b"x", b"x"]
    assert all(path.is_relative_to(tmp_path) for paths in files.values() for path in paths)
    again = asked(tmp_path, upload, estimated=False, noise=3)
    assert again[0][0][2].noise == 3.0
    assert again[1]["pictures"][1] != files["pictures"][1]  # two visitors, two files


@pytest.mark.parametrize(
    "name", ["iterate_0.png", "bicubic.png", "shown", "....png", ".png", "x" * 300]
)
def test_a_name_takes_no_file_of_another(tmp_path, name):
    (tmp_path / "sent").write_bytes(b"data")
    _, files = asked(tmp_path, {"path": str(tmp_path / "sent"), "orig_name": name})
    assert files["pictures"][1].read_bytes() == b"picture"
    assert len({path for paths in files.values() for path in paths}) == 6


def test_only_files_that_were_dropped_are_read(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"data")
    (folder / "link").symlink_to(tmp_path / "secret.png")
    for path in (tmp_path / "secret.png", folder / ".." / "secret.png", folder / "link"):
        with pytest.raises(ValueError, match="not a file that you dropped"):
            asked(folder, {"path": str(path)})
    with pytest.raises(ValueError, match="^gone.png: no longer here"):
        asked(folder, {"path": str(folder / "gone.png")})
    for nothing in (None, {}, "x.png", {"path": None}):
        with pytest.raises(ValueError, match="drop a picture"):
            asked(folder, nothing)
    (folder / "there.png").write_bytes(b"data")
    for numbers in ({"scale": "x"}, {"iterations": None}, {"noise": [], "estimated": False}):
        with pytest.raises(ValueError, match="must be numbers"):
            asked(folder, {"path": str(folder / "there.png")}, **numbers)


def test_the_oldest_results_make_room(tmp_path):
    (tmp_path / "sent").write_bytes(b"data")
    upload = {"path": str(tmp_path / "sent"), "orig_name": "photo.png"}
    visitors = dataclasses.replace(desk(tmp_path), room=2 * 18)  # bytes of a result of `desk`
    told = (2, "small", 1, True, 2, lambda part, text: None)
    shown = [visitors.files(upload, *told)[1]["pictures"][1] for _ in range(5)]
    assert [path.exists() for path in shown] == [False, False, False, True, True]
    assert disk.used(tmp_path / disk.RESULTS) == 36 and (tmp_path / "sent").exists()
    with pytest.raises(ValueError, match="more room than there is"):
        dataclasses.replace(visitors, room=17).files(upload, *told)
    assert all(path.exists() for path in shown[3:])


def test_the_page_offers_what_fits_and_no_programs_interface(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    gradio = pytest.importorskip("gradio")
    offers = {"x2": Offer(2, 1), "x4": Offer(4, 1), "x4_k10": Offer(4, 10), "any": Offer(None, 2)}
    blocks = page.page(offers, LIMITS, tmp_path, lambda *_: None)
    shown = {getattr(block, "label", None): block for block in blocks.blocks.values()}
    assert [value for _, value in shown["Larger by"].choices] == [2, 3, 4]
    assert [value for _, value in shown["Weights"].choices] == ["x4", "x4_k10", "any"]
    assert not blocks.api_open and not blocks.analytics_enabled
    assert blocks._queue.max_size == 3
    assert not blocks.get_api_info()["named_endpoints"]
    heavy = [fn for fn in blocks.fns.values() if fn.concurrency_limit == 1]
    assert [fn.name for fn in heavy] == ["run"]
    asked = [fn.name for fn in blocks.fns.values() if fn.fn is not None]
    assert asked == ["run"]  # all else is done in the browser, also while the queue is full
    # What `serve` puts something else in the place of:
    assert asyncio.iscoroutinefunction(gradio.processing_utils.async_ssrf_protected_download)


def test_what_was_wrong_is_shown_as_text():
    gradio = pytest.importorskip("gradio")
    error = page._refusal(gradio, "<img src=x>.png: not an image")
    assert error.message == "&lt;img src=x&gt;.png: not an image" and not error.print_exception
