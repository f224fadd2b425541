"""Conversion, exact to the bit; and nothing but one line where there is nothing to convert."""

import dataclasses
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import GOLDEN, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import images

torch = pytest.importorskip("torch")
from convert import from_torch, to_torch, torch_model  # noqa: E402
from convert import verify as verification  # noqa: E402
from convert.__main__ import main  # noqa: E402

STEPS = {"depth2_k5": 4, "depth5_k10": 4, "gray_depth3_k4_steps2": 2}
# The values that a careless copy changes, among ordinary ones.
AWKWARD = torch.tensor([-0.0, 0.0, 1e-45, -1e-39, 3.4e38, 1 / 3])


def run(*arguments):
    """The exit code of `python -m convert`."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def bits(state):
    """Everything that must survive: names in order, types, shapes and bytes."""
    arrays = {name: np.asarray(value) for name, value in state.items()}
    return [(name, a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()]


def storages(state):
    """Which names share memory."""
    first = {}
    return {name: first.setdefault(value.data_ptr(), name) for name, value in state.items()}


def files(folder):
    """Contents of a folder, hidden files included."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


class Skeleton(torch.nn.Module):
    """PyTorch's own modules where the official ones are, so that PyTorch names the tensors."""

    def __init__(self, norm, channels=3, features=4, depth=2, iterations=3):
        super().__init__()
        nn, f = torch.nn, features

        def block():
            return nn.ModuleDict(
                {
                    "conv1": norm(nn.Conv2d(f, f, 3)),
                    "relu1": nn.PReLU(f),
                    "relu2": nn.PReLU(f),
                    "conv2": norm(nn.Conv2d(f, f, 3)),
                }
            )

        blocks = nn.ModuleList(block() for _ in range(depth))
        feedback = {
            "compress_in": norm(nn.Conv2d(2 * f, f, 1)),
            "prelu": nn.PReLU(2 * f),
            "RBs": blocks,
        }
        self.alpha = nn.Parameter(torch.zeros(iterations))
        self.w = nn.Parameter(torch.zeros(iterations))
        self.model = nn.ModuleDict(
            {
                "conv": norm(nn.Conv2d(channels, f, 5)),
                "resblocks": blocks,
                "fbblock": nn.ModuleDict(feedback),
                "conv_out": norm(nn.ConvTranspose2d(f, channels, 5)),
            }
        )


def old_norm(module):
    with warnings.catch_warnings(action="ignore"):  # deprecated, but in the official files
        return torch.nn.utils.weight_norm(module)


new_norm = torch.nn.utils.parametrizations.weight_norm


def random_state(norm=old_norm, seed=0, **shape):
    """A state dict of random numbers, with awkward ones in it."""
    generator = torch.Generator().manual_seed(seed)
    model = Skeleton(norm, **shape)
    with torch.no_grad():
        for parameter in model.parameters():
            flat = torch.randn(parameter.numel(), generator=generator)
            flat[:: len(AWKWARD) + 1] = AWKWARD[seed % len(AWKWARD)]
            parameter.copy_(flat.view_as(parameter))
    return model.state_dict()


# --- exact to the bit ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", STEPS)
def test_golden_checkpoints_there_and_back(tmp_path, capsys, name):
    source, ours, back = GOLDEN / f"{name}.pth", tmp_path / "w.safetensors", tmp_path / "w.pth"
    steps = ["--feedback-steps", STEPS[name]]
    assert run(source, ours, "--scale", 4, *steps) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and f"{STEPS[name]} feedback steps" in out and "scale 4" in out
    assert ("grey" if "gray" in name else "RGB") in out
    assert run(ours, back) == 0
    before = torch.load(source, weights_only=True)
    after = torch.load(back, weights_only=True)
    assert list(after) == list(before) == ["model_state_dict"]
    before, after = before["model_state_dict"], after["model_state_dict"]
    assert type(after) is type(before)
    assert bits(after) == bits(before)
    assert storages(after) == storages(before)
    assert len(set(storages(after).values())) < len(after)
    assert sorted(files(tmp_path)) == ["w.pth", "w.safetensors"]
    assert back.stat().st_size < 1.05 * source.stat().st_size  # shared tensors are stored once


@pytest.mark.parametrize("name", STEPS)
def test_from_torch_is_what_load_weights_reads(tmp_path, name):
    path = tmp_path / "w.safetensors"
    run(GOLDEN / f"{name}.pth", path, "--scale", 3, "--feedback-steps", STEPS[name])
    loaded = isr.load_weights(path)
    state = torch.load(GOLDEN / f"{name}.pth", weights_only=True)
    weights = from_torch(state, feedback_steps=STEPS[name], scale=3)
    assert weights.config == loaded.config
    depth, iterations = int(name.split("depth")[1][0]), int(name.split("_k")[1].split("_")[0])
    channels = 1 if "gray" in name else 3
    assert loaded.config == isr.ModelConfig(channels, 64, depth, STEPS[name], iterations, 3)
    assert jax.tree.structure(weights) == jax.tree.structure(loaded)
    jax.tree.map(np.testing.assert_array_equal, weights, loaded)
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(weights))


@given(
    shape=st.fixed_dictionaries(
        {
            "channels": st.sampled_from([1, 3]),
            "features": st.integers(1, 6),
            "depth": st.sampled_from([1, 2, 3, 11]),
            "iterations": st.integers(1, 12),
        }
    ),
    seed=st.integers(0, 2**32 - 1),
    form=st.sampled_from(["bare", "wrapped", "data parallel", "arrays"]),
    norm=st.sampled_from([old_norm, new_norm]),
)
@settings(max_examples=25)
def test_every_form_of_every_shape_there_and_back(tmp_path_factory, shape, seed, form, norm):
    folder = tmp_path_factory.mktemp("convert")
    official, state = random_state(old_norm, seed, **shape), random_state(norm, seed, **shape)
    if norm is new_norm:
        assert any(name.endswith("parametrizations.weight.original0") for name in state)
    match form:
        case "wrapped":
            state = {"model_state_dict": state, "epoch": 3}
        case "data parallel":
            state = {f"module.{name}": value for name, value in state.items()}
        case "arrays":
            state = {name: value.numpy() for name, value in state.items()}
    weights = from_torch(state, feedback_steps=7)
    config = isr.ModelConfig(**shape, feedback_steps=7)
    assert weights.config == config
    expected = Skeleton(old_norm, **shape).state_dict()  # names in PyTorch's order
    assert sorted(to_torch(weights.params)) == sorted(expected)
    assert bits(sorted_state(to_torch(weights.params))) == bits(sorted_state(official))
    if form != "arrays":
        torch.save(state, folder / "a.pt")
        assert run(folder / "a.pt", folder / "b.SafeTensors", "--feedback-steps", 7) == 0
        assert run(folder / "b.SafeTensors", folder / "c.PTH") == 0
        again = torch.load(folder / "c.PTH", weights_only=True)["model_state_dict"]
        assert bits(again) == bits(to_torch(weights.params))
        assert storages(sorted_state(again)) == storages(sorted_state(official))


def sorted_state(state):
    return dict(sorted(state.items()))


def test_tensors_are_where_they_belong():
    """Each kernel does in our layout what PyTorch's does in its own."""
    state = random_state()
    params = from_torch(state).params["network"]
    v = state["model.fbblock.RBs.1.conv2.weight_v"].numpy()
    ours = params["block_1"]["conv_2"]["v"]
    assert ours[2, 0, 3, 1] == v[1, 3, 2, 0]
    assert params["compress"]["v"][0, 0, 5, 2] == state["model.fbblock.compress_in.weight_v"][2, 5]
    transposed = state["model.conv_out.weight_v"].numpy()  # (in, out, k, k)
    assert params["decoder"]["v"][0, 1, 3, 2] == transposed[3, 2, 4, 3]
    assert params["block_0"]["slopes_2"][3] == state["model.resblocks.0.relu2.weight"][3]
    assert params["slopes"].shape == (8,)


def test_loading_shares_no_memory_with_a_file_written(tmp_path):
    """The tensors written can be trained further: they own their memory."""
    weights = from_torch(random_state())
    before = jax.tree.map(np.copy, weights.params)
    isr.save_weights(weights, tmp_path / "w.safetensors")
    run(tmp_path / "w.safetensors", tmp_path / "w.pth")
    state = torch.load(tmp_path / "w.pth", weights_only=True)["model_state_dict"]
    for value in state.values():
        value += 1
    jax.tree.map(np.testing.assert_array_equal, weights.params, before)


def test_gradients_in_official_names_and_layouts():
    """d/dp sum p^3 is 3 p^2 in every layout; NaN passes, as a gradient may have it."""
    state = random_state(channels=1, depth=3)
    state = {name: value.clamp(-2, 2) for name, value in state.items()}
    params = from_torch(state).params
    gradient = jax.grad(lambda p: sum(jnp.sum(a**3) for a in jax.tree.leaves(p)))(params)
    found = to_torch(gradient)
    assert sorted(found) == sorted(state)
    for name, value in state.items():
        assert isinstance(found[name], np.ndarray) and found[name].flags.c_contiguous
        np.testing.assert_allclose(found[name], 3 * value.numpy() ** 2, rtol=1e-5, err_msg=name)
    gradient["network"]["decoder"]["v"] = gradient["network"]["decoder"]["v"].at[0, 1].set(jnp.nan)
    nan = np.isnan(to_torch(gradient)["model.conv_out.weight_v"])
    assert nan[:, :, 4, 3].all() and nan.mean() == 1 / 25


# --- physics and step ---------------------------------------------------------------------------


def with_physics(weights, physics, step):
    config = dataclasses.replace(weights.config, physics=physics, step=step)
    return dataclasses.replace(weights, config=config)


@pytest.mark.parametrize(("physics", "step"), [("exact", 1), ("exact", 16.0), ("reference", 2.5)])
def test_physics_and_step_there_and_back(tmp_path, capsys, physics, step):
    a, b, c = (tmp_path / name for name in ("a.safetensors", "b.pth", "c.safetensors"))
    before = with_physics(from_torch(random_state()), physics, step)
    isr.save_weights(before, a)
    assert run(a, b) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and f"{physics} physics, step {step:g}" in out
    assert err.startswith("convert: warning: ") and err.count("\n") == 1
    assert str(b) in err and f"{physics} physics" in err and "official PyTorch code" in err
    content = torch.load(b, weights_only=True)
    assert list(content) == ["model_state_dict", "physics", "step"]
    assert content["physics"] == physics and content["step"] == step
    assert type(content["physics"]) is str and type(content["step"]) is float
    assert run(b, c) == 0
    out, err = capsys.readouterr()
    assert f"{physics} physics, step {step:g}" in out and err == ""
    for after in (isr.load_weights(c), from_torch(content)):
        assert after.config == before.config
        assert bits(to_torch(after.params)) == bits(to_torch(before.params))


@pytest.mark.parametrize("step", [1, 1.0])
def test_official_weights_have_no_more_beside_them_and_no_warning(tmp_path, capsys, step):
    weights = with_physics(from_torch(random_state()), "reference", step)
    isr.save_weights(weights, tmp_path / "a.safetensors")
    assert run(tmp_path / "a.safetensors", tmp_path / "b.pth") == 0
    out, err = capsys.readouterr()
    assert err == "" and "physics" not in out and "step 1" not in out
    assert list(torch.load(tmp_path / "b.pth", weights_only=True)) == ["model_state_dict"]


def test_either_of_physics_and_step_may_be_missing():
    state = {"model_state_dict": random_state()}
    for beside in ({}, {"physics": "exact"}, {"step": 4}):
        config = from_torch(state | beside).config
        assert config.physics == beside.get("physics", "reference")
        assert config.step == beside.get("step", 1.0) and type(config.step) is float


def test_the_line_about_bad_physics_is_one():
    state = {"model_state_dict": random_state()}
    for beside in ({"physics": torch.ones(9, 9)}, {"physics": "a\nb"}, {"step": torch.ones(9, 9)}):
        with pytest.raises(ValueError) as error:
            from_torch(state | beside)
        assert "\n" not in str(error.value)


# --- damage -------------------------------------------------------------------------------------


def refused(capsys, folder, *arguments):
    """The one line with which a conversion is refused, having left nothing behind."""
    before = files(folder)
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.endswith("\n"), (out, err)
    assert err.startswith("convert: ") and files(folder) == before
    return err


FIRST, SECOND = "model.resblocks.1.conv2.weight_v", "model.fbblock.RBs.1.conv2.weight_v"
NAME = "model.conv_out.weight_g"


def edited(name, edit):
    return lambda state: state | {name: edit(state[name].clone())}


def without(*names):
    return lambda state: {name: value for name, value in state.items() if name not in names}


def with_value(value, where=(0, 0, 0, 0)):
    def edit(tensor):
        tensor[where] = value
        return tensor

    return edit


def beside(**more):
    return lambda state: {"model_state_dict": state, **more}


def minus_zero(state):
    zero = with_value(0.0)(state[FIRST].clone())
    return state | {FIRST: zero, SECOND: with_value(-0.0)(zero.clone())}


DAMAGE = {
    "no length": (without(NAME), f"{NAME} is missing"),
    "no alpha": (without("alpha"), "tensor alpha is missing"),
    "no encoder": (without("model.conv.weight_v"), "model.conv.weight_v is missing"),
    "no duplicate": (without(SECOND), f"{SECOND} is missing"),
    "no original": (without(FIRST), f"{FIRST} is missing"),
    "no tensors": (lambda state: {}, "alpha is missing: this is not an ISRResCNet"),
    "another network": (lambda state: {"fc.weight": torch.ones(3)}, "not an ISRResCNet checkpoint"),
    "no blocks": (
        lambda state: {k: v for k, v in state.items() if "resblocks" not in k},
        "no residual blocks",
    ),
    "a block between": (
        lambda state: {k.replace("s.0.", "s.7."): v for k, v in state.items()},
        "tensor model.resblocks.0.conv1.bias is missing",
    ),
    "one more": (lambda state: state | {"model.extra.weight": torch.ones(2)}, "model.extra.weight"),
    "one twice": (lambda state: state | {"module.w": state["w"]}, "w is there twice"),
    "no tensor": (lambda state: state | {"w": "three"}, "w is not a tensor"),
    "number": (lambda state: state | {"model.step": 3}, "model.step is not a tensor"),
    "wide": (edited(NAME, lambda t: torch.cat((t, t))), NAME),
    "short": (edited("w", lambda t: t[:-1]), "alpha and w have 3 and 2 values"),
    "flat length": (edited(NAME, torch.flatten), NAME),
    "length transposed": (edited(NAME, lambda t: t.reshape(1, -1, 1, 1)), NAME),
    "scalar alpha": (edited("alpha", lambda t: t[0]), "tensor alpha"),
    "flat encoder": (edited("model.conv.weight_v", torch.flatten), "tensor model.conv.weight_v"),
    "both transposed": (
        lambda state: (
            state
            | dict.fromkeys(
                ["model.resblocks.0.conv1.weight_v", "model.fbblock.RBs.0.conv1.weight_v"],
                torch.ones(5, 4, 3, 3),
            )
        ),
        "model.resblocks.0.conv1.weight_v",
    ),
    "float64": (edited(FIRST, torch.Tensor.double), f"{FIRST} is float64"),
    "float16": (edited("alpha", torch.Tensor.half), "tensor alpha is float16"),
    "bfloat16": (edited(FIRST, torch.Tensor.bfloat16), f"{FIRST} is torch.bfloat16"),
    "integers": (edited("w", torch.Tensor.int), "tensor w is int32"),
    "sparse": (edited(NAME, torch.Tensor.to_sparse), NAME),
    "NaN": (edited("w", with_value(torch.nan, 0)), "tensor w has values that are not finite"),
    "infinity": (edited(NAME, with_value(torch.inf)), f"{NAME} has values that are not finite"),
    "copies differ": (edited(SECOND, with_value(7.0)), f"{FIRST} and {SECOND} differ"),
    "copies of another shape": (edited(SECOND, lambda t: t[:, :2]), f"tensor {SECOND} is"),
    "minus zero": (minus_zero, f"{FIRST} and {SECOND} differ"),
    "two channels": (edited("model.conv.weight_v", lambda t: t[:, :2]), "for 2 channels"),
    "a list": (lambda state: list(state.values()), "holds a list, not a state dict"),
    "a tensor": (lambda state: state["w"], "holds a Tensor, not a state dict"),
    "wrapped list": (lambda state: {"model_state_dict": [1]}, "model_state_dict is a list"),
    "wrapped nothing": (lambda state: {"model_state_dict": {}}, "tensor alpha is missing"),
    "unknown physics": (beside(physics="other"), "physics must be reference or exact, not 'other'"),
    "physics a number": (beside(physics=3), "physics is a int, not a name"),
    "physics a tensor": (beside(physics=torch.ones(2)), "physics is a Tensor"),
    "physics a list": (beside(physics=["exact"]), "physics is a list"),
    "no physics": (beside(physics=None), "physics is a NoneType"),
    "step of zero": (beside(step=0), "step must be a positive number, not 0"),
    "step back": (beside(step=-1.0), "step must be a positive number, not -1.0"),
    "step NaN": (beside(step=float("nan")), "step must be a positive number, not nan"),
    "endless step": (beside(step=float("inf")), "step must be a positive number, not inf"),
    "step beyond floats": (beside(step=10**400), "step must be a positive number"),
    "step true": (beside(step=True), "step is a bool, not a number"),
    "step a name": (beside(step="two"), "step is a str, not a number"),
    "step a tensor": (beside(step=torch.ones(2)), "step is a Tensor, not a number"),
    "step a list": (beside(step=[1.0]), "step is a list, not a number"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_are_refused(tmp_path, capsys, damage):
    damaged, message = DAMAGE[damage]
    path = tmp_path / "bad.pth"
    torch.save(damaged(random_state()), path)
    err = refused(capsys, tmp_path, path, tmp_path / "w.safetensors")
    assert message in err and str(path) in err


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def spoil(path, how, whole):
    match how:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "last byte":
            path.write_bytes(whole[:-1])
        case "text":
            path.write_text("hello\nworld\n")
        case "page":
            path.write_text("<html>\n404\n</html>\n")
        case "pickle":
            path.write_bytes(pickle.dumps({"alpha": Payload(str(path.parent / "ran"))}))
        case "code":
            torch.save({"alpha": Payload(str(path.parent / "ran"))}, path)
        case "folder":
            path.mkdir()


@pytest.mark.parametrize("how", ["empty", "truncated", "last byte", "text", "page", "folder"])
@pytest.mark.parametrize("suffixes", [(".pth", ".safetensors"), (".safetensors", ".pth")])
def test_unreadable_files_are_named(tmp_path, capsys, how, suffixes):
    source, target = (tmp_path / f"w{suffix}" for suffix in suffixes)
    whole = tmp_path / f"whole{suffixes[0]}"
    if suffixes[0] == ".pth":
        torch.save(random_state(), whole)
    else:
        isr.save_weights(from_torch(random_state()), whole)
    spoil(source, how, whole.read_bytes())
    assert str(source) in refused(capsys, tmp_path, source, target)


@pytest.mark.parametrize("how", ["code", "pickle"])
@pytest.mark.filterwarnings("error")
def test_code_in_a_file_does_not_run(tmp_path, capsys, how):
    path = tmp_path / "w.pth"
    spoil(path, how, b"")
    err = refused(capsys, tmp_path, path, tmp_path / "w.safetensors")
    assert f"{path}: refused: it holds more than tensors" in err
    assert "weights_only" not in err  # PyTorch's own text advises to switch it off
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False) if how == "code" else pickle.loads(path.read_bytes())
    assert (tmp_path / "ran").exists(), "the test's own payload does nothing"


def test_safetensors_that_are_not_ours_are_refused(tmp_path, capsys):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"alpha": torch.ones(3)}, path)
    assert "not an ISRResCNet weights file" in refused(capsys, tmp_path, path, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("w.pth", "w.pth"),
        ("w.pth", "new.pt"),
        ("w.safetensors", "new.safetensors"),
        ("w.pth", "new"),
        ("w.pth", "new.npz"),
        ("w.bin", "new.safetensors"),
    ],
)
def test_wrong_suffixes(tmp_path, capsys, source, target):
    torch.save(random_state(), tmp_path / source)
    err = refused(capsys, tmp_path, tmp_path / source, tmp_path / target)
    assert "one must end in .pth, the other in .safetensors" in err and source in err


def test_existing_files_stay_unless_told(tmp_path, capsys):
    source, target, back = (tmp_path / n for n in ("a.pth", "a.safetensors", "b.pth"))
    torch.save(random_state(), source)
    target.write_text("precious")
    back.write_text("precious")
    assert f"{target} exists: give --overwrite" in refused(capsys, tmp_path, source, target)
    # A failure leaves the old file even so.
    torch.save({}, tmp_path / "bad.pth")
    refused(capsys, tmp_path, tmp_path / "bad.pth", target, "--overwrite")
    assert run(source, target, "--overwrite") == 0
    isr.load_weights(target)
    assert f"{back} exists: give --overwrite" in refused(capsys, tmp_path, target, back)
    assert run(target, back, "--overwrite") == 0
    assert bits(torch.load(back, weights_only=True)["model_state_dict"])


@pytest.mark.parametrize("suffixes", [(".pth", ".safetensors"), (".safetensors", ".pth")])
def test_files_that_are_not_there(tmp_path, capsys, suffixes):
    source = tmp_path / f"none{suffixes[0]}"
    err = refused(capsys, tmp_path, source, tmp_path / f"w{suffixes[1]}")
    assert f"{source}: no such" in err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--scale", 5, "scale must be"), ("--feedback-steps", 0, "feedback_steps must be")],
)
def test_impossible_options(tmp_path, capsys, option, value, message):
    torch.save(random_state(), tmp_path / "w.pth")
    target = tmp_path / "w.safetensors"
    assert message in refused(capsys, tmp_path, tmp_path / "w.pth", target, option, value)


@pytest.mark.parametrize("suffixes", [(".pth", ".safetensors"), (".safetensors", ".pth")])
def test_without_pytorch(tmp_path, capsys, monkeypatch, suffixes):
    torch.save(random_state(), tmp_path / "w.pth")
    isr.save_weights(from_torch(random_state()), tmp_path / "w.safetensors")
    # Not None in its place: what finds the name in `sys.modules` takes it for imported.
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [WithoutTorch(), *sys.meta_path])
    source, target = tmp_path / f"w{suffixes[0]}", tmp_path / f"new{suffixes[1]}"
    err = refused(capsys, tmp_path, source, target)
    assert "PyTorch is not installed" in err and "pip install" in err


class WithoutTorch:
    """Finds no PyTorch, and ends the search for it."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name)


def test_importing_convert_does_not_import_pytorch():
    code = "import convert, convert.__main__, sys; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_the_command(tmp_path):
    """As users run it: nothing but the one line on stderr, warnings of PyTorch included."""
    spoil(tmp_path / "w.pth", "pickle", b"")
    command = [sys.executable, "-m", "convert", tmp_path / "w.pth", tmp_path / "w.safetensors"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("convert: ") and done.stderr.count("\n") == 1
    assert sorted(files(tmp_path)) == ["w.pth"]


# --- verify -------------------------------------------------------------------------------------


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
