import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from isrrescnet_jax import cluster, remote
from isrrescnet_jax.cluster import sources


def names(pieces):
    return [(job.source, job.name) for piece in pieces for job in piece.jobs]


def test_files_and_shards_of_folders_lists_and_patterns(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.png", "x.tar", "deep/y.parquet", "note.md"):
        remote.write(tmp_path / name, b"1")
    found = cluster.find([str(tmp_path)], recursive=True, ending="_x4.webp")
    assert names(found) == [
        (f"{tmp_path}/a.JPG", "a_x4.webp"),
        (f"{tmp_path}/b.png", "b_x4.webp"),
        (f"{tmp_path}/deep/c.png", "deep/c_x4.webp"),
    ]
    shards = [(piece.shard, piece.below) for piece in found if piece.shard]
    assert shards == [(f"{tmp_path}/deep/y.parquet", "deep/y/"), (f"{tmp_path}/x.tar", "x/")]
    (tmp_path / "list.txt").write_text(f"{tmp_path}/b.png\n{tmp_path}/deep\n")
    listed = cluster.find([str(tmp_path / "list.txt"), f"{tmp_path}/b*"])
    assert names(listed) == [(f"{tmp_path}/b.png", "b.png"), (f"{tmp_path}/deep/c.png", "c.png")]
    remote.write(tmp_path / "deep/b.jpg", b"1")
    with pytest.raises(ValueError, match="would both become b.png"):
        cluster.find([str(tmp_path / "b.png"), str(tmp_path / "deep/b.jpg")])
    with pytest.raises(FileNotFoundError, match="no such file"):
        cluster.find([str(tmp_path / "none.png")])


def test_addresses_in_a_list_are_not_asked_for_one_by_one(tmp_path, monkeypatch):
    listed = [f"s3://many/{i}.png" for i in range(3)]
    (tmp_path / "list.txt").write_text("\n".join([*listed, "s3://many/x.tar", "s3://many/y*.png"]))
    asked = []
    monkeypatch.setattr(remote, "find", lambda name, *_: asked.append(name) or [])
    found = cluster.find([str(tmp_path / "list.txt")])
    assert names(found) == [(name, name.rpartition("/")[2]) for name in listed]
    assert [piece.shard for piece in found if piece.shard] == ["s3://many/x.tar"]
    assert asked == ["s3://many/y*.png"]


def test_results_and_manifests_below_a_folder_are_no_sources(tmp_path):
    for name in ("a.png", "big/a.png", "big/_manifest/x.parquet", "_manifest/y.parquet"):
        remote.write(tmp_path / name, b"1")
    folder, out = str(tmp_path), str(tmp_path / "big")
    assert names(cluster.find([folder], True, without=out)) == [(f"{folder}/a.png", "a.png")]
    assert len(cluster.find([folder], True, without=out)) == 1  # no shards
    assert names(cluster.find([folder], True, "_x.png", without=f"{folder}/bi")) == [
        (f"{folder}/a.png", "a_x.png"),
        (f"{folder}/big/a.png", "big/a_x.png"),
    ]
    for where in (out, folder, f"{folder}/big/x4"):
        assert names(cluster.find([out], True, without=where)) == [(f"{out}/a.png", "a.png")]


def test_what_has_the_name_of_another_in_its_shard_is_told(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.png", "a.jpg", "b.png", "a.png"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"1"))
    (piece,) = cluster.find([str(tmp_path / "x.tar")])
    found = []
    with pytest.raises(ValueError, match=r"a\.jpg, a\.png: not done, as the results of others"):
        found.extend(job.name for job in piece.each())
    assert found == ["x/a.png", "x/b.png"]


def test_what_is_left(tmp_path):
    for name in ("a.png", "b.png", "x.tar", "xy.tar"):
        remote.write(tmp_path / name, b"1")
    whole = cluster.find([str(tmp_path)])
    rest = sources.left(whole, {"a.png", "x/1.png", "x/deep/2.png", "other/3.png"})
    assert [name for _, name in names(rest)] == ["b.png"]
    done = {piece.below: set(piece.done) for piece in rest if piece.shard}
    assert done == {"x/": {"x/1.png", "x/deep/2.png"}, "xy/": set()}


MILLION = """
from isrrescnet_jax import cluster, remote
million = [f"{i // 1000:03}/{i:07}.png" for i in range(1_000_000)]
remote.names, remote.is_file = lambda *_: iter(million), lambda _: False
whole = cluster.find(["s3://many"], recursive=True)
rest = cluster.sources.left(whole, set(million[:999_000]))
assert sum(len(piece.jobs) for piece in whole) == 1_000_000
found = [(job.source, job.name) for piece in rest for job in piece.jobs]
assert found == [(f"s3://many/{name}", name) for name in million[999_000:]]
"""


def test_a_million_names():
    # In a process of its own, where types are not checked: it takes seconds, not minutes.
    root = Path(remote.__file__).parents[1]
    subprocess.run([sys.executable, "-c", MILLION], check=True, cwd=root, timeout=120)


def test_manifest(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    manifest = cluster.Manifest(str(tmp_path), "now")
    manifest.add([cluster.Record("a", "a.png", width=3, height=2, seconds=0.5)])
    assert not list(tmp_path.rglob("*"))
    manifest.begin()
    (empty,) = Path(tmp_path, "_manifest").iterdir()
    assert pyarrow.parquet.read_table(empty).num_rows == 0
    manifest.add([cluster.Record("b", "b.png", error="b: damaged")] * 10_000)
    manifest.flush()
    manifest.add([cluster.Record("c", "c.png")])
    manifest.flush()
    files = sorted(Path(tmp_path, "_manifest").iterdir())
    assert [file.name for file in files] == ["now-000000.parquet", "now-000001.parquet"]
    rows = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
    assert len(rows) == 10_002 and rows[1]["error"] == "b: damaged"
    assert rows[0] == {
        "source": "a", "name": "a.png", "shard": None, "error": None, "note": None,
        "width": 3, "height": 2, "seconds": 0.5,
    }  # fmt: skip
