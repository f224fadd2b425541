from pathlib import Path

import numpy as np
from commands import fails, run
from conftest import photo
from PIL import Image


def test_shards_share_a_folder(here, weights, capsys):
    for i in range(3):
        Image.fromarray(photo(5, 6, seed=i)[0]).save(f"photos/{i}.png")
    seen = []
    for part in ("1/2", "2/2"):
        assert run("upscale", "photos", "--weights", weights, "--shard", part, "--out", part) == 0
        seen.append({p.name for p in Path(part).iterdir()})
    assert [len(names) for names in seen] == [3, 2] and len(seen[0] | seen[1]) == 5
    for bad in ("0/2", "3/2", "2", "a/b"):
        assert "--shard" in fails(capsys, "upscale", "photos", "--shard", bad)


def test_bad_files_do_not_stop_a_batch(here, weights, capsys):
    Path("photos/animal.png").write_text("not a picture")
    assert run("upscale", "photos", "--weights", weights) == 2
    captured = capsys.readouterr()
    assert "2 of 3 written" in captured.out
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("failed: photos/animal.png: not an image")
    assert len(list(Path("sr_results").iterdir())) == 2


def test_existing_results(here, weights, capsys):
    Path("sr_results").mkdir()
    Path("sr_results/bird.png").write_text("mine")
    arguments = ["upscale", "photos", "--weights", weights]
    assert "already there" in fails(capsys, *arguments)
    assert not Path("sr_results/castle.png").exists()
    assert run(*arguments, "--skip-existing") == 0
    assert "1 picture to do, 1 already there" in capsys.readouterr().out
    assert Path("sr_results/bird.png").read_text() == "mine"
    assert run(*arguments, "--overwrite") == 0
    assert Image.open("sr_results/bird.png").size == (24, 18)
    assert "exclude" in fails(capsys, *arguments, "--overwrite", "--skip-existing")


def test_results_are_refused_that_would_collide_or_be_impossible(here, weights, capsys):
    Image.open("photos/bird.png").save("photos/bird.jpg")
    assert "would both become" in fails(capsys, "upscale", "photos", "--weights", weights)
    assert "overwrite an input" in fails(
        capsys, "upscale", "photos/bird.png", "--weights", weights, "--out", "photos", "--overwrite"
    )
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save("clear.png")
    line = fails(capsys, "upscale", "clear.png", "--weights", weights, "--format", "jpg")
    assert "cannot hold transparency" in line
    assert not Path("sr_results").exists()
