import contextlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from commands import fails, run
from conftest import photo
from PIL import Image

from isrrescnet_jax import cluster, remote
from isrrescnet_jax.cli.fleet import Nodes

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def started(bucket):
    root = str(Path(remote.__file__).parents[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
        module = cluster.connect()
        yield module
        module.shutdown()


@pytest.fixture
def ray(started, monkeypatch):
    """One Ray for all commands, which start it otherwise."""
    monkeypatch.setattr(Nodes, "connected", lambda self: contextlib.nullcontext(started))


def contents(folder) -> dict[str, bytes]:
    return {name: remote.read(remote.join(folder, name)) for name in images_in(folder)}


def images_in(folder) -> list[str]:
    return sorted(n for n in remote.names(folder) if not n.startswith("_manifest/"))


def pictures(folder: Path) -> None:
    """Of several kinds, one of them damaged."""
    (folder / "below").mkdir(parents=True)
    grey = photo(8, 9, seed=5)[0, :, :, 0]
    Image.fromarray(grey).save(folder / "below" / "grey.png")
    Image.fromarray(np.dstack([photo(9, 7, seed=6)[0], grey[:1].repeat(9, 0)[:, :7]])).save(
        folder / "clear.webp", lossless=True
    )
    frames = [Image.fromarray(frame) for frame in photo(6, 7, 3, seed=7)]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    Image.fromarray(photo(9, 12, seed=8)[0]).save(folder / "print.jpg", dpi=(300, 300))
    (folder / "damaged.png").write_bytes((folder / "moving.png").read_bytes()[:60])


def test_in_batches_too(here, weights, ray, capsys):
    rng = np.random.default_rng(0)
    pictures(Path("in"))
    for i in range(6):
        Image.fromarray(photo(*rng.integers(5, 20, 2), seed=i)[0]).save(f"in/{i}.png")
    base = ["upscale", "in", "--recursive", "--weights", weights]
    assert run(*base, "--out", "plain") == 2
    assert run(*base, "--out", "out", "--ray", "--workers", "1", "--batch", "4") == 2
    plain, found = (
        [np.asarray(Image.open(path)).astype(int) for path in sorted(Path(out).rglob("*.png"))]
        for out in ("plain", "out")
    )
    assert len(plain) == 10
    apart = np.concatenate([np.abs(a - b).ravel() for a, b in zip(plain, found, strict=True)])
    assert apart.max() <= 1 and np.mean(apart > 0) <= 3 / apart.size
    assert "--batch must be" in fails(capsys, *base, "--out", "none", "--ray", "--batch", "0")


def test_upscale_gives_what_it_gives_without_ray(here, weights, ray, capsys):
    pictures(Path("in"))
    base = ["upscale", "in", "--recursive", "--weights", weights, "--suffix", "_big"]
    assert run(*base, "--out", "plain") == 2
    (failure,) = capsys.readouterr().err.strip().splitlines()
    # With as many threads as here: their number decides in which order values are added.
    words = [*base, "--out", "out", "--ray", "--workers", "1"]
    assert run(*words) == 2
    said = capsys.readouterr()
    assert (
        said.err.strip().splitlines()[-1] == failure.replace("in/", f"{here}/in/")
        and f"4 written to {here}/out" in said.out
    )
    assert contents("plain") == contents("out") and len(contents("out")) == 4
    rows = cluster.manifest.finished  # which reads what shards have; here there are none
    assert rows("out", {"none"}) == set()
    Path("in/damaged.png").unlink()
    before = {p: p.stat().st_mtime_ns for p in Path("out").rglob("*.png")}
    assert run(*words) == 0
    assert "0 pictures to do, 4 already there" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in Path("out").rglob("*.png")}


def test_degrade_and_evaluate(here, weights, ray, capsys):
    Path("hr").mkdir()
    for i in range(3):
        Image.fromarray(photo(20, 26, seed=i)[0]).save(f"hr/{i}.png")
    base = ["degrade", "hr", "--scale", "2", "--noise", "5"]
    assert run(*base, "--out", "lr") == 0 and run(*base, "--out", "ray", "--ray") == 0
    assert contents("lr") == contents("ray") and len(contents("ray")) == 3
    Image.fromarray(photo(5, 5)[0]).save("lr/1.png")  # not half as large
    for more, name in ([], "plain.json"), (["--ray", "--workers", "1"], "ray.json"):
        words = ["--hr", "hr", "--lr", "lr", "--scale", "2", "--weights", weights, "--no-times"]
        assert run("evaluate", *words, "--json", name, *more) == 2
    said = Path("plain.json").read_text()
    for name in ("hr/1.png", "lr/1.png"):
        said = said.replace(name, f"{here}/{name}")
    assert json.loads(Path("ray.json").read_text()) == json.loads(said)


def test_from_a_bucket_through_shards_to_a_bucket(here, weights, ray, bucket, capsys):
    base = ["upscale", "--weights", weights]
    assert run(*base, "photos", "--out", "plain") == 0
    for name, data in contents("photos").items():
        remote.write(f"{bucket}/in/{name}", data)
    assert run(*base, f"{bucket}/in/", "--out", f"{bucket}/out", "--ray") == 0
    assert contents(f"{bucket}/out") == contents("plain")
    assert run(*base, f"{bucket}/in/", "--out", f"{bucket}/out", "--ray") == 0
    assert "0 pictures to do, 2 already there" in capsys.readouterr().out
    with tarfile.open("photos.tar", "w") as tar:
        tar.add("photos/bird.png", "bird.png")
        tar.add("photos/castle.bmp", "castle.bmp")
    remote.write(f"{bucket}/photos.tar", Path("photos.tar").read_bytes())
    words = [f"{bucket}/photos.tar", "--out", f"{bucket}/table", "--into", "parquet"]
    assert run(*base, *words, "--ray") == 0
    (table,) = images_in(f"{bucket}/table")
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(io.BytesIO(remote.read(f"{bucket}/table/{table}")))
    found = {row["name"]: row["image"]["bytes"] for row in rows.to_pylist()}
    assert found == {f"photos/{name}": data for name, data in contents("plain").items()}
    words = ["degrade", f"{bucket}/table/", "--scale", "2", "--out", "small", "--ray"]
    assert run(*words) == 0 and len(images_in("small")) == 2


def test_of_many_failures_some_are_named(here, ray, capsys):
    for i in range(25):
        Path(f"photos/bad{i}.png").write_text("not a picture")
    assert run("degrade", "photos", "--scale", "2", "--out", "out", "--ray") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 21 and lines[-1].startswith("failed: 5 more, see ")
    import pyarrow.parquet

    rows = [
        r
        for f in Path("out/_manifest").iterdir()
        for r in pyarrow.parquet.read_table(f).to_pylist()
    ]
    assert len(rows) == 27 and sum(row["error"] is not None for row in rows) == 25


def test_lists_and_parts(here, weights, ray, capsys):
    Path("list.txt").write_text("photos/castle.bmp\n\nphotos/bird.png\n")
    words = ["degrade", "list.txt", "--scale", "2", "--ray"]
    for i in ("1", "2"):
        assert run(*words, "--out", f"out{i}", "--shard", f"{i}/2") == 0
    assert images_in("out1") + images_in("out2") == ["castle.png", "bird.png"]


def test_what_cannot_be_done(here, weights, monkeypatch, capsys):
    words = ["upscale", "photos", "--weights", weights, "--ray"]
    assert "cannot be reached" in fails(capsys, *words, "127.0.0.1:1")
    assert "HOST:PORT" in fails(capsys, *words, "somewhere")
    assert "one address" in fails(capsys, *words, "a:1", "b:2")
    assert "--workers" in fails(capsys, *words, "--workers", "0")
    for option in (("--workers", "2"), ("--column", "x"), ("--into", "tar"), ("--batch", "4")):
        plain = ["upscale", "in", "--weights", "x2", "--out", "never", *option]
        assert f"{' '.join(option)} is for --ray" in fails(capsys, *plain)
    for address in ("s3://bucket/HR", "gs://bucket/HR"):
        said = fails(capsys, "evaluate", "--hr", address, "--scale", "2")
        assert "only folders are evaluated" in said
    assert "--trace" in fails(capsys, *words, "--trace", "traces")
    assert "--json" in fails(capsys, *words, "--json", "a.json")
    assert "would be overwritten" in fails(capsys, *words, "--out", "photos", "--overwrite")
    Image.open("photos/bird.png").save("photos/bird.jpg")
    assert "would both become bird.png" in fails(capsys, *words)
    Path("photos/bird.jpg").unlink()
    address = fails(capsys, "upscale", "s3://nowhere/a.png", "--weights", weights)
    assert "an address is for --ray" in address
    import ray

    def other(*_, **__):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 1.0")

    monkeypatch.setattr(ray, "init", other)
    assert "Version mismatch" in fails(capsys, *words)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'isrrescnet-jax[ray]'" in fails(capsys, *words)


def test_no_input_is_overwritten_and_no_result_is_an_input(here, capsys):
    Path("photos/bird_x.png").write_bytes(Path("photos/bird.png").read_bytes())
    before = contents("photos")
    Path("link").symlink_to("photos")
    base = ["degrade", "--scale", "2", "--ray", "--dry-run"]
    for words in (
        ["photos", "--out", "photos"],
        ["link", "--out", "photos", "--overwrite"],
        ["photos/bird.png", "link/bird_x.png", "--suffix", "_x", "--out", "photos", "--overwrite"],
    ):
        assert "would be overwritten" in fails(capsys, *base, *words)
    assert contents("photos") == before
    for name in ("bird", "bird_x", "castle"):
        remote.write(f"photos/small/{name}.png", b"1")
    remote.write("photos/small/_manifest/a.parquet", b"1")
    assert run(*base, "photos", "--recursive", "--out", "photos/small") == 0
    assert capsys.readouterr().out == "0 pictures to do, 3 already there\n"


def test_a_place_for_results_that_cannot_be(here, capsys):
    words = ["degrade", "photos", "--scale", "2", "--ray"]
    assert fails(capsys, *words, "--out", "/proc/none").startswith("isrrescnet: /proc/none: ")
    assert "not a picture" in fails(capsys, *words, "--out", "small.png")
    assert "is for --ray" in fails(capsys, *words[:-1], "--out", "small", "--into", "tar")
    assert not Path("small").exists() and not Path("small.png").exists()


def test_commands_without_ray_do_not_import_it(here):
    import subprocess

    code = "import sys, isrrescnet_jax.cli.upscale, isrrescnet_jax.cli.evaluate as e; " + (
        "sys.exit(bool({'ray', 'pyarrow', 'fsspec', 'pandas', 'jax'} & set(sys.modules)))"
    )
    root = str(Path(remote.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": root})
