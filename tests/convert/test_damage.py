"""What is refused, in one line, leaving nothing behind."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import (
    bits,
    files,
    random_state,
    refused,
    run,
)

import isrrescnet_jax as isr

torch = pytest.importorskip("torch")

from convert import from_torch  # noqa: E402

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
    "no direction": (
        edited(NAME.replace("_g", "_v"), with_value(0.0, 2)),
        "model.conv_out.weight_v has no direction in channel 2",
    ),
    "overflow": (edited("model.conv.weight_v", with_value(1e30)), "weight_v overflows"),
    "large logarithm": (edited("w", with_value(89.0, 0)), "w is a logarithm of values that"),
    "large view": (lambda state: state | {"w": torch.ones(1).expand(2**40)}, "more values than"),
    "no values": (edited(NAME, lambda t: t.to("meta")), "conv_out.weight_g"),
    "a block far away": (
        lambda state: {k.replace("s.1.", "s.999999999999."): v for k, v in state.items()},
        "tensor model.resblocks.1.conv1.bias is missing",
    ),
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
@pytest.mark.usefixtures("unchecked")
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


def test_compressed_files_are_refused_before_they_grow(tmp_path, capsys):
    import zipfile

    torch.save({"alpha": torch.zeros(10**6)}, tmp_path / "whole.pth")
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(tmp_path / "whole.pth") as old, zipfile.ZipFile(path, "w", 8) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    (tmp_path / "whole.pth").unlink()
    assert path.stat().st_size < 10**5
    assert "is compressed" in refused(capsys, tmp_path, path, tmp_path / "w.safetensors")


def test_negative_lengths_convert_to_the_bit(tmp_path):
    state = random_state()
    state[NAME] = -state[NAME].abs()
    torch.save(state, tmp_path / "a.pth")
    assert run(tmp_path / "a.pth", tmp_path / "b.safetensors") == 0
    assert run(tmp_path / "b.safetensors", tmp_path / "c.pth") == 0
    again = torch.load(tmp_path / "c.pth", weights_only=True)["model_state_dict"]
    assert dict(zip(sorted(again), bits(dict(sorted(again.items()))), strict=True)) == dict(
        zip(sorted(state), bits(dict(sorted(state.items()))), strict=True)
    )


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


class WithoutTorch:
    """Finds no PyTorch, and ends the search for it."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError(name)


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
