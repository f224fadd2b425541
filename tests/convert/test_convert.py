"""Conversion, exact to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import (
    STEPS,
    Skeleton,
    bits,
    files,
    new_norm,
    old_norm,
    random_state,
    run,
    storages,
    with_physics,
)
from conftest import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr

torch = pytest.importorskip("torch")
from convert import from_torch, to_torch  # noqa: E402

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


def test_a_shipped_name_is_as_good_as_its_file(tmp_path, capsys):
    by_name, by_file = tmp_path / "a.pth", tmp_path / "b.pth"
    assert run("x2_k10", by_name) == run(isr.shipped_weights()["x2_k10"], by_file) == 0
    said = capsys.readouterr().out
    assert f"x2_k10 -> {by_name}: RGB" in said and "10 iterations, scale 2" in said
    named, filed = (torch.load(path)["model_state_dict"] for path in (by_name, by_file))
    assert bits(named) == bits(filed)
    assert run("x5", tmp_path / "c.pth") == 2
    assert "no weights named 'x5' are shipped" in capsys.readouterr().err


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


@pytest.mark.usefixtures("unchecked")
def test_the_line_about_bad_physics_is_one():
    state = {"model_state_dict": random_state()}
    for beside in ({"physics": torch.ones(9, 9)}, {"physics": "a\nb"}, {"step": torch.ones(9, 9)}):
        with pytest.raises(ValueError) as error:
            from_torch(state | beside)
        assert "\n" not in str(error.value)
