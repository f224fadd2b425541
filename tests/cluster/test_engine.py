import collections
import dataclasses
import io
import tarfile
from pathlib import Path

import pyarrow.parquet
import pytest
from cluster_work import Turning

from isrrescnet_jax import cluster


def files(folder: Path, count: int, **special: str) -> list[str]:
    folder.mkdir()
    for i in range(count):
        name = f"{i:03}"
        (folder / f"{name}.png").write_text(special.get(f"_{i}", "picture") + f" {name}")
    return sorted(str(path) for path in folder.iterdir())


def records(ray, work, pieces, destination, workers=1):
    found = [r for some in cluster.run(ray, work, pieces, destination, workers) for r in some]
    assert len({record.name for record in found}) == len(found)
    return {record.name: record for record in found}


def test_one_that_ends_its_process_takes_no_other_along(ray, tmp_path):
    sources = files(tmp_path / "in", 70, _3="read", _40="compute", _41="raise")
    work = Turning(tmp_path / "log")
    out = cluster.Destination(str(tmp_path / "out"))
    found = records(ray, work, cluster.find(sources), out)
    bad = {name: record.error for name, record in found.items() if record.error}
    assert set(bad) == {"003.png", "040.png", "041.png"} and len(found) == 70
    assert "ends each time" in bad["003.png"] and bad["003.png"].startswith(sources[3])
    assert bad["041.png"] == f"{sources[41]}: what ever"
    assert out.done() == set(found) - set(bad)
    for name in out.done():
        source = (tmp_path / "in" / name).read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == source[::-1]


def test_one_that_fails_in_a_batch_takes_no_other_along(ray, tmp_path):
    sources = files(tmp_path / "in", 12, _0="fail", _5="fail", _6="fail")
    found = records(ray, Turning(tmp_path / "log"), cluster.find(sources), None)
    bad = {name: record.error for name, record in found.items() if record.error}
    assert set(bad) == {"000.png", "005.png", "006.png"} and len(found) == 12
    assert bad["005.png"] == f"{sources[5]}: never"
    times = collections.Counter((tmp_path / "log").read_text().splitlines())
    assert len(times) == 9 and set(times.values()) == {1}


@pytest.mark.parametrize("accelerated", [True, False])
def test_nothing_is_done_twice(ray, tmp_path, accelerated):
    sources = files(tmp_path / "in", 100)
    work, out = Turning(tmp_path / "log", accelerated), cluster.Destination(str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    for i in range(30):
        (tmp_path / "out" / f"{i:03}.png").write_text("mine")
    pieces = cluster.sources.left(cluster.find(sources), out.done())
    found = records(ray, work, pieces, out)
    assert len(found) == 70 and not any(record.error for record in found.values())
    lines = (tmp_path / "log").read_text().splitlines()
    times = collections.Counter(line.split(" ", 1)[1] for line in lines)
    assert set(times.values()) == {1} and len(times) == 70
    assert (tmp_path / "out" / "003.png").read_text() == "mine"
    assert not cluster.sources.left(cluster.find(sources), out.done())


def tar(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return str(path)


@pytest.mark.slow
def test_shards_to_shards(ray, tmp_path):
    members = {f"{i:03}.png": b"picture %03d" % i for i in range(150)}
    members |= {"077.png": b"compute 077", "078.png": b"raise 078", "000.txt": b"about it"}
    source = tar(tmp_path / "a.tar", members)
    arrow = pyarrow.table({"image": [b"column 0", b"column 1"], "other": [1, 2]})
    pyarrow.parquet.write_table(arrow, tmp_path / "b.parquet")
    (tmp_path / "c.tar").write_text("not one")
    sources = [source, str(tmp_path / "b.parquet"), str(tmp_path / "c.tar")]
    work = Turning(tmp_path / "log")
    for into in ("tar", "parquet"):
        (tmp_path / "log").write_text("")
        out = cluster.Destination(str(tmp_path / into), into)
        found = records(ray, work, cluster.find(sources), out)
        bad = {record.source for record in found.values() if record.error}
        assert bad == {f"{source}/078.png", f"{source}: a/077.png", str(tmp_path / "c.tar")}
        good = {name: record for name, record in found.items() if not record.error}
        assert out.done() == set(good) and len(good) == 150
        seen = {}
        for shard in (tmp_path / into).glob(f"*.{into}"):
            if into == "tar":
                with tarfile.open(shard) as file:
                    for member in file:
                        seen[member.name] = file.extractfile(member).read()
            else:
                for row in pyarrow.parquet.read_table(shard).to_pylist():
                    seen[row["name"]] = row["image"]["bytes"]
            assert {n for n, r in good.items() if r.shard == shard.name} <= set(seen)
        assert set(seen) == set(good) and seen["a/003.png"] == b"picture 003"[::-1]
        assert seen["b/00000001.png"] == b"column 1"[::-1]
        before = (tmp_path / "log").read_text()
        pieces = cluster.sources.left(cluster.find(sources[:2]), out.done())
        again = records(ray, work, pieces, out)
        assert {record.source for record in again.values()} == bad - {str(tmp_path / "c.tar")}
        assert (tmp_path / "log").read_text() == before


def test_a_shard_without_its_row_counts_as_not_there(ray, tmp_path):
    out = cluster.Destination(str(tmp_path / "out"), "tar")
    record = cluster.Record("a.png", "a.png")
    (shard,) = {done.shard for done in out.pack([(record, b"1")])}
    assert out.done() == {"a.png"}
    assert out.pack([(record, b"1")]) == [dataclasses.replace(record, shard=shard)]
    with pytest.raises(ValueError, match="shards are not overwritten"):
        dataclasses.replace(out, replace=True).done()
    (tmp_path / "out" / shard).unlink()
    assert out.done() == dataclasses.replace(out, replace=True).done() == set()
