import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import isrrescnet_jax as isr
from isrrescnet_jax.prior import conv as module
from isrrescnet_jax.prior.bilinear import Way


def jaxs(x, kernel, padding="SAME"):
    """JAX's own convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)


def drawn(seed, *shape, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def close(ours, theirs, rtol=1e-10):
    def tensor(a, b):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert np.linalg.norm(a - b) <= rtol * np.linalg.norm(b)

    jax.tree.map(tensor, ours, theirs)


CASES = [  # kernel, padding: ordinary, oblong, uneven, wider than the kernel, cropping
    ((3, 3), "SAME"),
    ((5, 5), "VALID"),
    ((1, 1), "SAME"),
    ((2, 4), "SAME"),
    ((3, 5), ((0, 2), (4, 1))),
    ((3, 3), ((4, 3), (2, 5))),
    ((2, 3), ((-1, 0), (1, -2))),
]


@pytest.mark.parametrize("size, padding", CASES)
def test_derivatives_are_those_of_jax(size, padding, x64):
    x, kernel = drawn(0, 2, 7, 9, 4), drawn(1, *size, 4, 6)
    dx, dk = drawn(2, *x.shape), drawn(3, *kernel.shape)

    def derivatives(conv):
        def loss(x, k):
            return jnp.sum(conv(x, k, padding) ** 3)

        tangent = jax.jvp(lambda x, k: conv(x, k, padding), (x, kernel), (dx, dk))
        gradient = jax.grad(loss, (0, 1))
        over = jax.jvp(gradient, (x, kernel), (dx, dk))
        back = jax.grad(lambda *a: sum(jnp.sum(g**2) for g in gradient(*a)), (0, 1))(x, kernel)
        return tangent, over, back

    close(*(jax.jit(derivatives, static_argnums=0)(f) for f in (isr.conv, jaxs)))


def test_no_rows_and_too_few_rows():
    assert isr.conv(jnp.ones((0, 4, 4, 2)), jnp.ones((3, 3, 2, 1))).shape == (0, 4, 4, 1)
    gradient = jax.grad(lambda k: isr.conv(jnp.ones((0, 4, 4, 2)), k).sum())
    np.testing.assert_array_equal(gradient(jnp.ones((3, 3, 2, 1))), 0)
    with pytest.raises(ValueError, match="larger than"):
        isr.conv(jnp.ones((1, 4, 2, 2)), jnp.ones((3, 3, 2, 1)), "VALID")
    with pytest.raises(ValueError, match="'SAME'"):
        isr.conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 1)), "REFLECT")


@pytest.mark.usefixtures("unchecked")
def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        isr.conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 3, 1)))


BATCHES = [(0, None), (None, 0), (0, 0), (4, None), (None, 2), (3, 1)]


@pytest.mark.parametrize("axes", BATCHES)
@pytest.mark.parametrize("wide", [False, True])
def test_batches_of_images_and_of_kernels(axes, wide, x64):
    # The wide ones, in float32, go through `winograd`.
    features, dtype, rtol = (32, jnp.float32, 1e-5) if wide else (3, jnp.float64, 1e-10)

    def batched(a, axis):
        return a if axis is None else jnp.moveaxis(drawn(7, 2, *a.shape, dtype=dtype), 0, axis)

    x = batched(drawn(0, 2, 6, 5, features, dtype=dtype), axes[0])
    kernel = batched(drawn(1, 3, 3, features, 32, dtype=dtype), axes[1])

    def check(conv, x, kernel):
        def loss(x, k):
            return jnp.sum(conv(x, k) ** 2)

        def all_of_them(x, k):
            gradient = jax.grad(loss, (0, 1))
            return conv(x, k), gradient(x, k), jax.jvp(gradient, (x, k), (x, 2 * k))[1]

        inside = jax.vmap(all_of_them, axes)(x, kernel)
        # The other way round; with second derivatives of each argument alone.
        total = lambda x, k: jnp.sum(jax.vmap(conv, axes)(x, k) ** 3)  # noqa: E731
        outside = [jax.grad(total, argument)(x, kernel) for argument in (0, 1)]
        return inside, outside

    ours, theirs = (
        jax.jit(check, static_argnums=0)(f, x, kernel)
        for f in (functools.partial(isr.conv, precision="highest"), jaxs)
    )
    close(ours, theirs, rtol)


def test_batches_of_batches(x64):
    x, kernel = drawn(0, 2, 3, 1, 5, 4, 2), drawn(1, 3, 2, 3, 3, 2, 2)

    def nested(conv):
        f = jax.vmap(jax.vmap(conv, (0, None)), (1, 0))  # over x twice, over kernels once
        return jax.vmap(jax.grad(lambda x, k: jnp.sum(f(x, k) ** 3), (0, 1)), (None, 1))(x, kernel)

    close(nested(isr.conv), nested(jaxs))


def test_wide_kernels_in_every_derivative():
    x, kernel = (
        drawn(0, 1, 9, 8, 32, dtype=jnp.float32),
        drawn(1, 3, 3, 32, 40, dtype=jnp.float32),
    )

    def derivatives(conv):
        gradient = jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k))), (0, 1))
        return jax.jvp(gradient, (x, kernel), (kernel[:1, :1, 0, :32] + 0 * x, 0.1 * kernel))

    ours = jax.jit(functools.partial(derivatives, isr.conv))
    close(ours(), jax.jit(functools.partial(derivatives, jaxs))(), 1e-4)
    # `winograd` has six one-dimensional convolutions; its kernel gradient has none.
    text = ours.lower().as_text()
    assert text.count("stablehlo.convolution") % 6 == 0


def test_both_ways_compute_the_same(x64):
    # What the other platforms do, on this one.
    x, kernel, out = drawn(0, 2, 6, 7, 3), drawn(1, 3, 3, 3, 5), drawn(2, 2, 6, 7, 5)
    fixed = {"padding": ((1, 1), (1, 1)), "precision": None}
    for slot, args, shape in (
        ("x", (kernel, out), x.shape),
        ("kernel", (x, out), kernel.shape),
        ("out", (x, kernel), out.shape),
    ):
        here = module.CPU.maps()[slot](*args, shape=shape, **fixed)
        close(here, Way(module.correlate).maps()[slot](*args, shape=shape, **fixed))


def lowered(f, platform, *args):
    return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_other_platforms_have_their_own_way(platform):
    x, kernel = jnp.ones((1, 8, 8, 32)), jnp.ones((3, 3, 32, 32))

    def gradients(x, k):
        return jax.grad(lambda x, k: jnp.sum(isr.conv(x, k) ** 2), (0, 1))(x, k)

    elsewhere, here = (lowered(gradients, p, x, kernel) for p in (platform, "cpu"))
    assert elsewhere.count("stablehlo.convolution") == 3 and "stablehlo.while" not in elsewhere
    assert here.count("stablehlo.convolution") == 12 and "stablehlo.while" in here


def test_precision_is_that_of_the_caller():
    def text(precision=None):
        with jax.default_matmul_precision("float32"):
            traced = jax.jit(functools.partial(isr.conv, precision=precision)).trace(
                jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
            )
        return traced.lower().as_text()

    assert "HIGHEST" in text() and "HIGHEST" not in text("default")


def test_narrow_types_are_summed_in_wide_ones():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(1, 2, (1, 600, 64, 1)), jnp.bfloat16)  # many strips of rows

    def gradient(x):
        return jax.grad(lambda k: isr.conv(x, k).sum())(jnp.ones((3, 3, 1, 1), x.dtype))

    ours = gradient(x)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        ours.astype(jnp.float32), gradient(x.astype(jnp.float32)), rtol=2**-8
    )


def test_inside_of_shard_map_with_its_checks():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel = drawn(0, 2, 5, 5, 2, dtype=jnp.float32), drawn(1, 3, 3, 2, 2, dtype=jnp.float32)

    def gradients(x, k):
        return jax.grad(lambda x, k: jnp.sum(isr.conv(x, k) ** 2), (0, 1))(x, k)

    x_axis, none = jax.P("d"), jax.P()
    mapped = jax.shard_map(gradients, mesh=mesh, in_specs=(x_axis, none), out_specs=(x_axis, none))
    close(jax.jit(mapped)(x, kernel), gradients(x, kernel), 1e-6)


# --- the layer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": (5, 3), "padding": "VALID"},
        {"kernel_size": (2, 4), "padding": ((1, 0), (2, 3)), "use_bias": False},
        {"padding": 2, "bias_init": nn.initializers.normal()},
        {"dtype": jnp.float32, "param_dtype": jnp.float64},
        {"dtype": jnp.bfloat16},
    ],
)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_the_layer_equals_that_of_flax(options, batch, x64):
    options = {"features": 4, "kernel_size": (3, 3), **options}
    x = drawn(0, *batch, 6, 7, 3)
    ours, theirs = isr.Conv(**options), nn.Conv(**options)
    params = theirs.init(jax.random.key(1), x)
    close(ours.init(jax.random.key(1), x), params, 0)

    def check(layer):
        def loss(params, x):
            return jnp.sum(layer.apply(params, x).astype(jnp.float64) ** 2)

        return layer.apply(params, x), jax.grad(loss, (0, 1))(params, x)

    coarse = {jnp.bfloat16: 0.01, jnp.float32: 1e-5}
    close(check(ours), check(theirs), coarse.get(options.get("dtype"), 1e-10))


def test_one_number_means_a_square():
    layer = isr.Conv(2, 5)
    params = layer.init(jax.random.key(0), jnp.ones((6, 6, 1)))["params"]
    assert params["kernel"].shape == (5, 5, 1, 2)


class Denoiser(nn.Module):
    layer: type[nn.Module]

    @nn.compact
    def __call__(self, z):
        h = nn.relu(self.layer(4, (3, 3))(z / 255))
        return 20 * self.layer(z.shape[-1], (3, 3))(h)


def test_a_prior_of_ones_own_made_of_such_layers(x64):
    lr = jax.random.uniform(jax.random.key(0), (1, 5, 6, 3), jnp.float64, 0, 255)
    params = Denoiser(nn.Conv).init(jax.random.key(1), lr)
    schedule = {"alpha": jnp.zeros(3), "w": jnp.full(3, -1.0), "sigma": jnp.ones(1)}

    def loss(layer, backward, params):
        def denoise(params, z, sigma, alpha):
            return Denoiser(layer).apply(params, z)

        prior = jax.tree_util.Partial(denoise, params)
        options = schedule | {"backward": backward}
        return jnp.mean(
            isr.unroll(lr, isr.Decimation(2, reference=False), prior, **options).image ** 2
        )

    losses = itertools.product((isr.Conv, nn.Conv), (isr.Full(), isr.Full(unroll=True)))
    first, *others = (
        jax.jit(jax.value_and_grad(functools.partial(loss, layer, backward)))(params)
        for layer, backward in losses
    )
    for other in others:
        close(first, other)
