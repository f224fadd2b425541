"""`isrrescnet pack`, and training from what it made; every kind of bad input is one line."""

from pathlib import Path

import fsspec
import pytest
from bucket import locked
from commands import fails, run
from conftest import photo
from PIL import Image
from small_recipe import RECIPE

from isrrescnet_jax import remote
from isrrescnet_jax.data import packed

PACK = ("--scale", 2, "--patch", 32, "--crop", 40, "--shards", 4)


@pytest.fixture
def photos(here) -> Path:
    for i, image in enumerate(photo(48, 60, n=4)):
        Image.fromarray(image).save(f"photos/{i}.png")
    Path("photos/bird.png").unlink()  # which is too small to be trained on
    Path("photos/castle.bmp").unlink()
    Path("recipe.py").write_text(RECIPE)
    return here / "photos"


def train(data, *options):
    return ("train", "recipe.py", "--data", data, "--workdir", "w", "--data.cache", "", *options)


def test_pack_verify_and_train(photos, capsys):
    assert run("pack", "photos", "--out", "packed", *PACK) == 0
    assert "packed: 16 crops of 4 pictures in 4 shards, 0." in capsys.readouterr().out
    assert run("pack", "--verify", "packed") == 0
    assert "in 4 shards, 0.2 MB: all checksums match" in capsys.readouterr().out
    assert run(*train("packed", "--steps", 2)) == 0
    assert len(Path("w/metrics.jsonl").read_text().splitlines()) == 2
    line = fails(capsys, "pack", "photos", "--out", "packed", *PACK)
    assert line == "isrrescnet: packed: there is a finished pack: choose another folder"


def test_bad_pictures_are_named_at_the_end(photos, capsys):
    Image.fromarray(photo(20, 50)[0]).save("photos/low.png")
    Path("photos/text.jpg").write_text("no picture")
    (photos / "twice.png").write_bytes((photos / "0.png").read_bytes())
    assert run("pack", "photos", "--out", "packed", *PACK) == 2
    captured = capsys.readouterr()
    assert "20 crops of 5 pictures" in captured.out
    said = captured.err.strip().splitlines()[-3:]
    assert any("twice.png" in line and "the same pixels as" in line for line in said)
    assert any("low.png: 50x20 pixels, smaller than a patch" in line for line in said)
    assert any("text.jpg: not an image" in line for line in said)


def test_ctrl_c_says_how_to_go_on(photos, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remote, "write", interrupted)
        assert run("pack", "photos", "--out", "packed", *PACK) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err
    assert run("pack", "photos", "--out", "packed", *PACK) == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "name at least one folder"),
        (("photos",), "--out DEST"),
        (("nowhere", "--out", "packed"), "nowhere: no such folder"),
        (("gs://bucket/photos", "--out", "p"), "pictures must be in a folder of this machine"),
        (("photos", "--out", "p", "--crop", 16), "no room for patches of 128"),
        (("photos", "--out", "s4://b"), "s4://b: Protocol not known: s4"),
        (("photos", "--verify", "p"), "--verify DEST stands alone"),
        (("--verify", "photos"), "photos: no _pack.json there"),
    ],
)
def test_bad_command_lines_are_one_line(photos, capsys, argv, words):
    assert words in fails(capsys, "pack", *argv)


def test_bad_places_and_shards_are_one_line_of_training(photos, capsys, bucket):
    where = f"{bucket}/{photos.parent.name}"
    assert "no _pack.json there: `isrrescnet pack`" in fails(capsys, *train(where))
    assert "no _pack.json there: `isrrescnet pack`" in fails(capsys, *train("s3://nobody/here"))
    assert run("pack", "photos", "--out", where, *PACK) == 0
    with locked():
        line = fails(capsys, *train(where))
        assert f"{where}/_pack.json: no permission" in line
        assert "no permission" in fails(capsys, "pack", "photos", "--out", where, *PACK)
    names = sorted(set(remote.sizes(where)) - {packed.INDEX})
    shards = {name: remote.read(remote.join(where, name)) for name in (*names, packed.INDEX)}

    def spoiled(name, data):
        place = f"{where}-{len(data or b'')}"
        for other, content in (shards | {name: data}).items():
            if content is not None:
                remote.write(remote.join(place, other), content)
        return place

    place = spoiled(names[1], None)
    assert fails(capsys, *train(place)).startswith(f"isrrescnet: {place}/{names[1]}: this shard is")
    place = spoiled(names[1], shards[names[1]][:-5])
    assert f"{place}/{names[1]}: {len(shards[names[1]]) - 5} bytes of" in fails(
        capsys, *train(place)
    )
    other = bytearray(shards[names[1]])
    other[200] ^= 1
    place = spoiled(names[1], bytes(other))
    assert f"{place}/{names[1]}: its checksum does not match" in fails(capsys, *train(place))
    assert f"{place}/{names[1]}: its checksum" in fails(capsys, "pack", "--verify", place)


def test_an_address_that_cannot_be_reached(photos, capsys, monkeypatch):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    line = fails(capsys, *train("s3://elsewhere/packed"))
    assert line.startswith("isrrescnet: s3://elsewhere/packed/_pack.json: cannot be reached: Could")
