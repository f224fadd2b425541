"""Animations and pages: all of them, as they are to be seen, with their times."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from isrrescnet_jax.images import (
    Film,
    Metadata,
    Picture,
    encode_film,
    film_of,
    holds,
    open_film,
    read,
)

H, W = 10, 14
RNG = np.random.default_rng(0)
TIMES = (40, 100, 250, 70)


def scenes(channels: int = 3) -> list[np.ndarray]:
    """Few colours, so that GIF holds them; the later ones change a part only."""
    first = RNG.integers(0, 4, (H, W, channels), np.uint8) * 85
    if channels == 4:
        first[..., 3] = np.where(first[..., 3] > 100, 255, 0)
    frames = [first]
    for i in range(1, len(TIMES)):
        frame = frames[-1].copy()
        frame[i : i + 3, 2 : 5 + i, :3] = 85 * (i % 3)
        if channels == 4:
            frame[i : i + 3, 2 : 5 + i, 3] = 255 * (i % 2)
        frames.append(frame)
    return frames


def seen(frame: np.ndarray) -> np.ndarray:
    """RGBA without what lies under transparent pixels."""
    rgba = np.asarray(Image.fromarray(frame).convert("RGBA")).copy()
    rgba[rgba[..., 3] == 0] = 0
    return rgba


def seen_of(picture: Picture) -> np.ndarray:
    pixels = [picture.color.repeat(3, 2)[..., :3] if picture.color.shape[2] == 1 else picture.color]
    alpha = np.full((*pixels[0].shape[:2],), 255.0) if picture.alpha is None else picture.alpha
    return seen(np.dstack([*pixels, alpha]).astype(np.uint8))


def animation(tmp_path, suffix: str, frames, loop: int | None = 3, **options):
    first, *rest = map(Image.fromarray, frames)
    if suffix == ".webp":
        options |= {"lossless": True, "exact": True}
    if loop is not None:
        options["loop"] = loop
    path = tmp_path / f"x{suffix}"
    first.save(path, save_all=True, append_images=rest, duration=list(TIMES), **options)
    return path


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".webp", {}),
        (".png", {}),
        (".png", {"disposal": 1}),
        (".png", {"disposal": 2, "blend": 1}),
        (".gif", {}),
        (".gif", {"disposal": 2}),
    ],
)
@pytest.mark.parametrize("target", ["PNG", "WEBP"])
def test_animations(tmp_path, suffix, options, channels, target):
    frames = scenes(channels)
    path = animation(tmp_path, suffix, frames, **options)
    with Image.open(path) as image:  # what others see
        expected = []
        for index in range(image.n_frames):
            image.seek(index)
            expected.append(seen(np.asarray(image.convert("RGBA"))))
    film = open_film(path)
    assert (film.kind, film.count, film.durations) == ("animation", 4, TIMES)
    assert film.loop == (4 if suffix == ".gif" else 3)  # GIF says how often again
    buffer = io.BytesIO()
    encode_film(film, target, buffer)
    again = film_of(buffer.getvalue(), "again")
    assert (again.kind, again.loop) == ("animation", film.loop)
    found = every_10_ms(map(seen_of, again.pictures), again.durations)
    np.testing.assert_array_equal(found, every_10_ms(expected, TIMES))


def every_10_ms(pictures, durations) -> np.ndarray:
    """What is seen when; writers may join pictures that look the same."""
    times = np.rint(np.array(durations) / 10).astype(int)
    return np.repeat(np.stack(list(pictures)), times, axis=0)


@pytest.mark.parametrize(("written", "meant"), [(None, 1), (0, 0), (2, 3)])
def test_how_often_a_gif_plays(tmp_path, written, meant):
    assert open_film(animation(tmp_path, ".gif", scenes(), loop=written)).loop == meant


def test_the_picture_before_an_animation(tmp_path):
    frames = scenes()
    images = [Image.fromarray(frame) for frame in frames]
    path = tmp_path / "x.png"
    images[0].save(
        path, save_all=True, append_images=images[1:], default_image=True, duration=list(TIMES[1:])
    )
    film = open_film(path)
    assert film.apart and film.count == 4
    buffer = io.BytesIO()
    encode_film(film, "PNG", buffer)
    again = film_of(buffer.getvalue(), "again")
    assert again.apart and again.durations[1:] == TIMES[1:]
    for found, truth in zip(again.pictures, frames, strict=True):
        np.testing.assert_array_equal(seen_of(found), seen(truth))
    buffer = io.BytesIO()
    encode_film(open_film(path), "WEBP", buffer)  # which shows all that it has
    shown = film_of(buffer.getvalue(), "shown")
    assert shown.count == 3 and shown.durations == TIMES[1:]


def test_pages(tmp_path):
    deep = RNG.integers(0, 65536, (H, W, 3), np.uint16)
    grey = RNG.integers(0, 256, (W, 2 * H), np.uint8)
    real = RNG.random((5, 6, 3)).astype(np.float32)
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(deep, photometric="rgb", resolution=(100, 100), resolutionunit="inch")
        writer.write(grey[::2, ::2], photometric="minisblack", subfiletype=1)  # a preview
        writer.write(grey, photometric="minisblack")
        writer.write(real, photometric="rgb")
    film = open_film(tmp_path / "x.tif")
    assert (film.kind, film.count, film.durations) == ("pages", 3, ())
    pictures = list(film.pictures)
    np.testing.assert_array_equal(pictures[0].color, deep / np.float32(257))
    np.testing.assert_array_equal(pictures[1].color[..., 0], grey)
    np.testing.assert_allclose(pictures[2].color, real * 255, atol=1e-3)
    film = open_film(tmp_path / "x.tif")
    with open(tmp_path / "y.tif", "w+b") as file:
        encode_film(film, "TIFF", file)
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert len(file.pages) == 3
        np.testing.assert_array_equal(file.pages[0].asarray(), deep)
        np.testing.assert_array_equal(file.pages[1].asarray(), grey)
        assert file.pages[0].tags["XResolution"].value == (100, 1)


def test_metadata_of_an_animation(tmp_path):
    path = animation(tmp_path, ".webp", scenes(), icc_profile=b"profile" * 40)
    film = open_film(path)
    pictures = [
        Picture(p.color, p.alpha, 8, p.icc, Metadata((300, 300), software="me"))
        for p in film.pictures
    ]
    for target in ("PNG", "WEBP"):
        buffer = io.BytesIO()
        film = open_film(path)
        encode_film(
            type(film)(pictures, film.count, film.kind, film.durations, film.loop), target, buffer
        )
        first = next(iter(film_of(buffer.getvalue(), "x").pictures))
        assert first.icc == b"profile" * 40
        np.testing.assert_allclose(first.metadata.dpi, 300, rtol=1e-4)


def test_single_pictures_and_what_cannot_hold_more(tmp_path):
    Image.fromarray(scenes()[0]).save(tmp_path / "x.png")
    film = open_film(tmp_path / "x.png")
    assert (film.kind, film.count) == ("still", 1)
    np.testing.assert_array_equal(next(iter(film.pictures)).color, read(tmp_path / "x.png").color)
    for format in ("PNG", "WEBP", "TIFF", "JPEG", "BMP"):
        assert holds(format, "still")
        assert holds(format, "pages") == (format == "TIFF")
        assert holds(format, "animation") == (format in ("PNG", "WEBP"))
    film = open_film(animation(tmp_path, ".gif", scenes()))
    with pytest.raises(ValueError, match="JPEG cannot hold animation"):
        encode_film(film, "JPEG", io.BytesIO())


def test_a_damaged_frame_is_one_line(tmp_path):
    path = animation(tmp_path, ".png", scenes())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(ValueError) as error:
        list(open_film(path).pictures)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_pages_that_go_round_in_circles_end(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, RNG.integers(0, 256, (3, H, W), np.uint8), photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0], file.pages[2]
        at = last.offset + 2 + 12 * len(last.tags)
        start = first.offset
    data = bytearray(path.read_bytes())
    data[at : at + 4] = start.to_bytes(4, "little")
    film = film_of(bytes(data), "x")
    assert film.count == 3 and len(list(film.pictures)) == 3


def test_long_durations(tmp_path):
    times = (66_001.0, 59_999.5, 1e9)
    film = Film([Picture(f.astype(np.float32)) for f in scenes()[:3]], 3, "animation", times)
    for target in ("PNG", "WEBP"):
        buffer = io.BytesIO()
        encode_film(film, target, buffer)
        found = film_of(buffer.getvalue(), "x").durations
        np.testing.assert_allclose(found, [66_000, 60_000, 1.44e7], atol=1)


def test_too_many_pixels_in_all_frames(tmp_path, monkeypatch):
    path = animation(tmp_path, ".gif", scenes())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2 * H * W - 1)
    with pytest.raises(ValueError, match="too many pixels"):
        open_film(path)


def test_pages_have_nothing_of_those_before(tmp_path):
    first, second = (Image.fromarray(np.full((4, 5, 3), v, np.uint8)) for v in (9, 200))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with tifffile.TiffWriter(tmp_path / "y.tif") as writer:
        tags = [(34675, 7, len(profile), profile, True), (315, "s", 0, "Artist", True)]
        writer.write(np.asarray(first), photometric="rgb", extratags=tags, resolution=(300, 300))
        writer.write(np.asarray(second), photometric="rgb")
    a, b = open_film(tmp_path / "y.tif").pictures
    assert a.icc and b"Artist" in a.metadata.exif and a.metadata.dpi == (300, 300)
    assert not b.icc and b"Artist" not in b.metadata.exif and not b.metadata.dpi
    assert a.color[0, 0, 0] == 9 and b.color[0, 0, 0] == 200


@pytest.mark.parametrize("suffix", [".webp", ".png"])
@pytest.mark.parametrize(("orientation", "rot90"), [(6, -1), (3, 2)])
def test_frames_are_turned_as_exif_says(tmp_path, suffix, orientation, rot90):
    exif = Image.Exif()
    exif[0x0112] = orientation
    frames = scenes()
    path = animation(tmp_path, suffix, frames, exif=exif.tobytes())
    pictures = list(open_film(path).pictures)
    assert len(pictures) == len(frames)
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(picture.color, np.rot90(frame, rot90))
        kept = Image.Exif()
        kept.load(picture.metadata.exif)
        assert kept[0x0112] == 1
