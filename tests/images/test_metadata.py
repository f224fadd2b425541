"""What files say beside their pixels survives; what described the old file alone does not."""

import io

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, PngImagePlugin

from isrrescnet_jax.images import FORMATS, Metadata, Picture, read, write
from isrrescnet_jax.images.metadata import read_metadata

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="A"/>'
    b"<xmp:Thumbnails><rdf:li>old</rdf:li></xmp:Thumbnails></x:xmpmeta>"
)


def exif_of_a_camera(orientation: int = 6) -> bytes:
    """With a thumbnail in a second directory, the position, and the size of the old picture."""
    exif = Image.Exif()
    exif.endian = "<"
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Copyright] = "Somebody"
    exif[ExifTags.Base.Software] = "Firmware 1"
    exif[ExifTags.Base.Orientation] = orientation
    exif[0x8769] = {0x829A: (1, 50), 0xA002: 12, 0xA003: 8, 0x9003: "2020:01:01 00:00:00"}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 14.0)}
    data = exif.tobytes()
    # The first directory ends with where the next one lies, which is after everything.
    start = 6
    count = int.from_bytes(data[start + 8 : start + 10], "little")
    at = start + 10 + 12 * count
    thumbnail = b"\xff\xd8THUMBNAIL"
    second = len(data) - start
    directory = (2).to_bytes(2, "little")
    for tag, value in ((0x201, second + 2 + 24 + 4), (0x202, len(thumbnail))):
        directory += tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
    directory += bytes(4) + thumbnail
    return data[:at] + second.to_bytes(4, "little") + data[at + 4 :] + directory


def source(tmp_path, suffix: str, **options):
    image, path = Image.fromarray(PIXELS), tmp_path / f"source{suffix}"
    if suffix == ".png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Title", "Straße 雪")
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    else:
        options["xmp"] = XMP
    if suffix == ".tif":
        options["tiffinfo"] = {700: options.pop("xmp")}
    image.save(path, exif=exif_of_a_camera(), dpi=(300, 150), **options)
    return path


@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("start", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_from_format_to_format(tmp_path, start, target, bits):
    picture = read(source(tmp_path, start))
    metadata = picture.metadata.enlarged(4)
    path = tmp_path / f"result{target}"
    write(Picture(picture.color, bits=bits, metadata=metadata), path)
    data = path.read_bytes()
    assert b"THUMBNAIL" not in data and b"xmp:Thumbnails" not in data

    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert exif[ExifTags.Base.Make] == "Camera"
        assert exif[ExifTags.Base.Copyright] == "Somebody"
        assert exif[ExifTags.Base.Software] == "Firmware 1"
        assert 0x201 not in exif and 0x201 not in exif.get_ifd(ExifTags.IFD.IFD1)
        details, position = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert details[0x9003] == "2020:01:01 00:00:00"
        assert 0xA002 not in details and 0xA003 not in details
        assert position[1] == "N" and [float(v) for v in position[2]] == [48, 8, 14]
    found = read(path)
    assert b'dc:title="A"' in found.metadata.xmp
    assert b'tiff:Orientation="1"' in found.metadata.xmp
    # Turned by a quarter, across and down change places (WebP sources have no print size).
    if start != ".webp":
        np.testing.assert_allclose(found.metadata.dpi, (600, 1200), rtol=1e-4)
    if start == target == ".png":
        assert ("Title", "Straße 雪") in found.metadata.text
    np.testing.assert_array_equal(found.color.shape, (12, 8, 3))


def test_tiff_to_tiff(tmp_path):
    with open(tmp_path / "source.tif", "wb") as file:
        Image.fromarray(PIXELS).save(file, "TIFF", dpi=(300, 150), exif=exif_of_a_camera(1))
    for target in (".tif", ".png", ".jpg"):
        metadata = read(tmp_path / "source.tif").metadata.enlarged(2)
        write(Picture(PIXELS.astype(np.float32), metadata=metadata), tmp_path / f"x{target}")
        with Image.open(tmp_path / f"x{target}") as image:
            image.load()
            assert image.getexif()[ExifTags.Base.Make] == "Camera"
            assert [round(float(dpi)) for dpi in image.info["dpi"]] == [600, 300]
        np.testing.assert_allclose(read(tmp_path / f"x{target}").color, PIXELS, atol=60)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:  # and others can read it
        assert file.pages[0].tags[34665].value["ExposureTime"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("bits", [8, 16])
def test_print_size(tmp_path, suffix, bits):
    metadata = Metadata(dpi=(299.9994, 72.0)).enlarged(3)
    path = tmp_path / f"x{suffix}"
    write(Picture(PIXELS.astype(np.float32), bits=bits, metadata=metadata), path)
    np.testing.assert_allclose(read(path).metadata.dpi, (900, 216), rtol=1e-3)
    write(Picture(PIXELS.astype(np.float32), bits=bits), path)
    if suffix != ".bmp":  # where Pillow always writes one
        assert read(path).metadata.dpi is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_software(tmp_path, suffix, bits):
    path = tmp_path / f"x{suffix}"
    for exif in (None, exif_of_a_camera()):
        metadata = Metadata(exif=exif, text=(("Software", "old"),), software="program 1.0, x4")
        write(Picture(PIXELS.astype(np.float32), bits=bits, metadata=metadata), path)
        with Image.open(path) as image:
            image.load()
            if suffix == ".png":
                assert image.text["Software"] == "program 1.0, x4"
            if suffix != ".png" or exif:
                assert image.getexif()[ExifTags.Base.Software] == "program 1.0, x4"


def test_comments(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "x.jpg", comment="café".encode())
    metadata = read(tmp_path / "x.jpg").metadata
    assert metadata.text == (("Comment", "café"),)
    for name in ("y.jpg", "y.png"):
        write(Picture(PIXELS.astype(np.float32), metadata=metadata), tmp_path / name)
        assert read(tmp_path / name).metadata.text == metadata.text


def test_damaged_metadata_is_left_out(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0garbage" * 4)
    assert read(tmp_path / "x.jpg").metadata.exif is None


def test_what_is_too_long_for_jpeg_is_said(tmp_path):
    metadata = Metadata(xmp=b"<x>" + b"a" * 70000)
    with pytest.warns(UserWarning, match="XMP data too long for JPEG"):
        write(Picture(PIXELS.astype(np.float32), metadata=metadata), tmp_path / "x.jpg")
    buffer = io.BytesIO((tmp_path / "x.jpg").read_bytes())
    assert Image.open(buffer).size == (12, 8)


@pytest.mark.parametrize("side", ["nan", "inf", 0, -1, 1e9])
def test_print_sizes_that_make_no_sense_are_left_out(tmp_path, side):
    image = Image.fromarray(PIXELS)
    image.info["dpi"] = (300, float(side))
    assert read_metadata(image).dpi is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_texts_that_are_not_ascii_keep_their_bytes(tmp_path, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "José".encode()
    exif[ExifTags.Base.Copyright] = "© 2020 Müller".encode()
    Image.fromarray(PIXELS).save(tmp_path / "x.jpg", exif=exif.tobytes())
    write(read(tmp_path / "x.jpg"), tmp_path / f"y{suffix}")
    found = Image.open(tmp_path / f"y{suffix}").getexif()
    for tag, text in ((ExifTags.Base.Artist, "José"), (ExifTags.Base.Copyright, "© 2020 Müller")):
        assert found[tag].encode("latin-1").decode() == text  # Pillow reads Latin-1


@pytest.mark.parametrize(("suffix", "kept"), [(".png", True), (".tiff", True), (".webp", False)])
def test_a_profile_of_grey_is_for_grey_alone(tmp_path, suffix, kept):
    profile = bytes(16) + b"GRAY" + bytes(108)
    picture = Picture(np.full((8, 8, 1), 7, np.float32), icc=profile)
    path = tmp_path / f"a{suffix}"
    write(picture, path)  # WebP stores it as RGB
    with Image.open(path) as image:
        assert (image.info.get("icc_profile") == profile) is kept


@pytest.mark.parametrize("tags", [{}, {"resolution": (300, 150), "resolutionunit": "inch"}])
def test_a_tiff_file_without_a_print_size_has_none(tmp_path, tags):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, **tags)
    if not tags:  # tifffile writes 1 without a unit
        with tifffile.TiffFile(path, mode="r+b") as file:
            for code in (282, 283, 296):
                tag = file.pages[0].aspage().tags[code]
                file.filehandle.seek(tag.offset)
                file.filehandle.write((code + 65000 - 282).to_bytes(2, "little"))
    assert read(path).metadata.dpi == ((300, 150) if tags else None)


@pytest.mark.parametrize(
    ("description", "kept"),
    [
        ('{"shape": [8, 12, 3]}', False),
        ("ImageJ=1.53\nimages=2\n", False),
        ('<?xml version="1.0"?><!-- made --><OME xmlns="x"></OME>', False),
        ("The harbour at night", True),
        ('{"shape of things": "to come"}', True),
    ],
)
def test_descriptions_by_programs_are_left_out(tmp_path, description, kept):
    path, copy = tmp_path / "a.tif", tmp_path / "b.tif"
    tifffile.imwrite(path, PIXELS, description=description, metadata=None)
    write(read(path), copy)
    with tifffile.TiffFile(copy) as file:
        assert file.pages[0].description == (description if kept else "")
