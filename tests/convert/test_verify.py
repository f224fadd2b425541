"""`--verify` and `--expect`."""

import jax
import numpy as np
import pytest
from checkpoints import (
    Skeleton,
    old_norm,
    refused,
    run,
    with_physics,
)
from conftest import photo
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import images

torch = pytest.importorskip("torch")

from convert import from_torch, to_torch, torch_model  # noqa: E402
from convert import verify as verification  # noqa: E402


@pytest.fixture
def pair(tmp_path):
    """(checkpoint, picture, result of the checkpoint on the picture) of a small network."""

    def make(channels=3):
        torch.manual_seed(0)
        state = Skeleton(old_norm, channels, features=8, depth=1, iterations=2).state_dict()
        torch.save(state, tmp_path / "w.pth")
        weights = from_torch(state, feedback_steps=2, scale=2)
        picture = tmp_path / "picture.png"
        Image.fromarray(photo(12, 16)[0]).save(picture)
        lr = photo(12, 16).astype(np.float32)
        lr = lr if channels == 3 else lr.mean(-1, keepdims=True)
        solution = jax.jit(isr.reconstruct, static_argnames="trace")(
            weights, lr, operator=isr.Bicubic(2), trace=True
        )
        return tmp_path / "w.pth", picture, images.to_uint8(solution.image[0])

    return make


def options(picture, *more):
    return ["--feedback-steps", 2, "--scale", 2, "--verify", picture, *more]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.filterwarnings("error:.*not writable")
def test_verify_passes(tmp_path, capsys, pair, channels):
    source, picture, _ = pair(channels)
    assert run(source, tmp_path / "w.safetensors", *options(picture)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{picture}: 16x12, x2" in lines[1]
    assert [line.split()[0] for line in lines[3:5]] == ["1", "2"]
    assert all(float(line.split()[1]) < 0.02 for line in lines[3:5])
    assert lines[5].startswith("PASS") and len(lines) == 6
    # The way back, with the scale that the file states.
    assert run(tmp_path / "w.safetensors", tmp_path / "b.pth", "--verify", picture, picture) == 0
    out = capsys.readouterr().out
    assert out.count("16x12") == 2 and out.count("PASS") == 1


def test_verify_runs_the_physics_and_the_step_of_the_weights(tmp_path, capsys, pair):
    source, picture, _ = pair()
    weights = from_torch(torch.load(source, weights_only=True), feedback_steps=2, scale=2)
    isr.save_weights(with_physics(weights, "exact", 4.0), tmp_path / "exact.safetensors")
    assert run(tmp_path / "exact.safetensors", tmp_path / "b.pth", "--verify", picture) == 0
    out, err = capsys.readouterr()
    assert out.count("PASS") == 1 and "exact physics, step 4" in out and err.count("warning") == 1


def shift(where, by):
    def disturb(iterates):
        iterates[where] += by

    return disturb


@pytest.mark.parametrize(
    "disturb",
    [
        shift((0, 0, 0, 3, 3), 0.05),  # one value, and not of the last iteration
        shift((-1,), 0.015),  # within the limit, but more bytes flip than may
        shift((0, 0, 0, 3, 3), torch.nan),  # no byte flips
    ],
    ids=["first iterate", "bytes", "NaN"],
)
def test_verify_fails_on_other_iterates(tmp_path, capsys, monkeypatch, pair, disturb):
    source, picture, _ = pair()
    reconstruct = torch_model.reconstruct

    def disturbed(*args, **kwargs):
        result = reconstruct(*args, **kwargs)
        disturb(result["iterates"])
        return result

    monkeypatch.setattr(torch_model, "reconstruct", disturbed)
    with np.errstate(invalid="ignore"):  # of NaN as a byte
        assert run(source, tmp_path / "w.safetensors", *options(picture)) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("FAIL") and not any("PASS" in line for line in out)


def test_verify_fails_on_a_kernel_that_is_not_flipped(tmp_path, capsys, monkeypatch, pair):
    source, picture, _ = pair()

    def unflipped(params):
        state = to_torch(params)
        name = "model.conv_out.weight_v"
        return state | {name: np.ascontiguousarray(state[name][:, :, ::-1, ::-1])}

    monkeypatch.setattr(verification, "to_torch", unflipped)
    assert run(source, tmp_path / "w.safetensors", *options(picture)) == 1
    assert "FAIL" in capsys.readouterr().out


def test_expect_says_how_far_published_pictures_are(tmp_path, capsys, pair):
    source, picture, result = pair()
    published = tmp_path / "published" / picture.name
    published.parent.mkdir()
    result[5, 7, 1] = result[5, 7, 1] + 3 if result[5, 7, 1] < 100 else result[5, 7, 1] - 3
    Image.fromarray(result).save(published)
    more = options(picture, "--expect", published.parent)
    assert run(source, tmp_path / "w.safetensors", *more) == 0
    out = capsys.readouterr().out
    psnr = 10 * np.log10(255**2 * result.size / 9)
    share = f"{1 / result.size:.2e}"
    assert f"against {published}: {share} of the bytes differ, by 3 at most" in out
    assert f"{psnr:.2f} dB" in out


def test_what_verify_needs_is_asked_for_before_anything_is_written(tmp_path, capsys, pair):
    source, picture, _ = pair()
    target, nothing = tmp_path / "w.safetensors", tmp_path / "nothing.png"
    (tmp_path / "published").mkdir()
    expect = ("--expect", tmp_path / "published")
    err = refused(capsys, tmp_path, source, target, "--verify", picture)
    assert "--verify needs --scale" in err
    assert "needs --verify" in refused(capsys, tmp_path, source, target, *expect)
    err = refused(capsys, tmp_path, source, target, *options(nothing))
    assert f"{nothing}: no such file" in err
    err = refused(capsys, tmp_path, source, target, *options(picture), *expect)
    assert f"{tmp_path / 'published' / picture.name}: no such file" in err


def test_scale_can_be_given_where_the_weights_state_none(tmp_path, capsys, pair):
    source, picture, _ = pair()
    assert run(source, tmp_path / "w.safetensors", "--feedback-steps", 2) == 0
    more = ["--scale", 2, "--verify", picture]
    assert run(tmp_path / "w.safetensors", tmp_path / "b.pth", *more) == 0
    assert "PASS" in capsys.readouterr().out


def test_verify_names_pictures_that_pytorch_cannot_take(tmp_path, capsys, pair):
    source, picture, _ = pair()
    Image.fromarray(photo(7, 16)[0]).save(picture)
    assert run(source, tmp_path / "w.safetensors", *options(picture)) == 2
    err = capsys.readouterr().err
    assert f"{picture}: PyTorch takes images from 8x8 pixels up" in err and err.count("\n") == 1
