import os
from pathlib import Path

import numpy as np
import pytest

from isrrescnet_jax.images import find, plan_outputs, search


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text and text
    return text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.PNG", "a.jpg", "c.tiff", "note.txt", ".a-tmp.png", "d[1].png", "sub/e.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("void").mkdir()
    Path("folder.png").mkdir()
    return tmp_path


def test_find_folders_files_and_patterns(folder):
    assert [p.name for p in find([folder])] == ["a.jpg", "b.PNG", "c.tiff", "d[1].png"]
    assert find(["note.txt", "a.jpg"]) == [Path("note.txt"), Path("a.jpg")]
    assert find(["*.jpg"]) == [Path("a.jpg")]
    assert find(["d[1].png"]) == [Path("d[1].png")]
    assert find(["**/e.png"]) == [Path("sub/e.png")]
    assert find(["su?"]) == [Path("sub/e.png")]


def test_find_sorts(folder):
    for i in np.random.default_rng(0).permutation(90):
        Path(f"sub/{i + 10}.bmp").touch()
    expected = [Path(f"sub/{i + 10}.bmp") for i in range(90)]
    assert find(["sub"])[:-1] == find(["sub/*.bmp"]) == expected


def test_find_takes_each_file_once(folder):
    os.symlink("a.jpg", "link.jpg")
    found = find(["c.tiff", "a.jpg", "./a.jpg", folder / "a.jpg", "link.jpg", "*.jpg"])
    assert found == [Path("c.tiff"), Path("a.jpg")]
    assert len(find([".", folder])) == 4


def test_find_names_what_is_missing(folder):
    for missing in ("nowhere.png", "nothing-*.png", folder / "gone"):
        with pytest.raises(FileNotFoundError) as error:
            find(["a.jpg", missing])
        assert one_line(error) == f"{missing}: no such file or folder"
    with pytest.raises(ValueError, match="void: no images"):
        find(["void"])


def test_plan(folder):
    plan = plan_outputs(["a.jpg", "sub/e.png"], "out")
    assert plan == [(Path("a.jpg"), Path("out/a.png")), (Path("sub/e.png"), Path("out/e.png"))]
    assert plan_outputs(["a.jpg"], "out", ".webp") == [(Path("a.jpg"), Path("out/a.webp"))]
    assert not Path("out").exists()


@pytest.mark.parametrize("other", ["sub/a.png", "sub/A.tif"])
@pytest.mark.parametrize("existing", ["refuse", "overwrite", "skip"])
def test_plan_refuses_two_inputs_with_one_output(folder, other, existing):
    Path(other).touch()
    with pytest.raises(ValueError) as error:
        plan_outputs(["a.jpg", "b.PNG", other], "out", existing=existing)
    assert "a.jpg" in one_line(error) and other in one_line(error)


@pytest.mark.parametrize("existing", ["refuse", "overwrite", "skip"])
def test_plan_never_overwrites_an_input(folder, existing):
    Path("x.png").touch()
    for out in (".", folder, folder / "sub" / ".."):
        with pytest.raises(ValueError, match="would overwrite an input") as error:
            plan_outputs(["x.png"], out, existing=existing)
        one_line(error)
    Path("out").mkdir()
    os.symlink("../x.png", "out/x.png")
    with pytest.raises(ValueError, match="would overwrite an input"):
        plan_outputs(["x.png"], "out", existing=existing)


def test_plan_and_existing_outputs(folder):
    Path("out").mkdir()
    Path("out/a.png").touch()
    with pytest.raises(ValueError, match="--overwrite or --skip-existing") as error:
        plan_outputs(["a.jpg", "c.tiff"], "out")
    assert str(Path("out/a.png")) in one_line(error) and "c.png" not in one_line(error)
    assert len(plan_outputs(["a.jpg", "c.tiff"], "out", existing="overwrite")) == 2
    assert plan_outputs(["a.jpg", "c.tiff"], "out", existing="skip") == [
        (Path("c.tiff"), Path("out/c.png"))
    ]


def test_plan_shortens_a_long_list(folder):
    Path("out").mkdir()
    for i in range(5):
        Path(f"{i}.jpg").touch()
        Path(f"out/{i}.png").touch()
    with pytest.raises(ValueError, match="2.png and 2 more: already there"):
        plan_outputs([f"{i}.jpg" for i in range(5)], "out")


@pytest.mark.parametrize("length", [255, 300])
def test_plan_refuses_endings_that_leave_no_room_for_a_name(folder, length):
    with pytest.raises(ValueError, match="too long") as error:
        plan_outputs(["a.jpg"], "out", "x" * length)
    assert len(one_line(error)) < 100
    assert len(plan_outputs(["a.jpg"], "out", "x" * 254)[0][1].name) == 255


def test_plan_refuses_what_is_in_the_way(folder):
    Path("out/a.png").mkdir(parents=True)
    with pytest.raises(ValueError, match="a folder is in the way"):
        plan_outputs(["a.jpg"], "out", existing="overwrite")
    with pytest.raises(ValueError, match="not a folder"):
        plan_outputs(["a.jpg"], "note.txt")


def test_a_folder_that_cannot_be_listed_is_an_error(folder, monkeypatch):
    def walk(top, onerror):
        onerror(PermissionError(13, "Permission denied", "secret"))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(PermissionError):
        search([folder], recursive=True)


def test_links_that_are_not_followed_are_named(tmp_path):
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    for place in (folder, elsewhere):
        place.mkdir()
        (place / "x.png").touch()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "lost.png").symlink_to(tmp_path / "nothing.png")
    (folder / "lost.txt").symlink_to(tmp_path / "nothing.txt")
    flat = search([folder])
    assert flat.files == (folder / "x.png",) and flat.overlooked == (folder / "lost.png",)
    deep = search([folder], recursive=True)
    assert deep.files == flat.files
    assert set(deep.overlooked) == {folder / "lost.png", folder / "linked"}
