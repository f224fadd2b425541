"""Nine minutes on one GPU: a trunk for all scales, then each scale from it, in one command.

    python -m experiments.minutes --data train/ --validation kodak/ --out runs/minutes

Exact physics, one iteration, the official network in bfloat16, Muon. Everything is fitted into
`--seconds`, from the reading of the photographs to the last weights: each phase has a share of what
is left after the first compilation, and its learning rate follows the clock, so that the command
does the best it can on any machine. Weights are written whole now and then and at the end of each
phase, so that a run that is cut off leaves what it had. On a laptop, to see that all is well:

    JAX_PLATFORMS=cpu python -m experiments.minutes --data train/ --validation kodak/ \\
        --out runs/try --seconds 200 --batch 6 --side 24 --crop 48 --phases trunk x4

What is drawn is decided by the clock too, so two runs are never the same to the bit; `isrrescnet
train` with `exact.py` is the recipe that is.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float

from experiments import device_data
from experiments.device_data import Photographs
from isrrescnet_jax import Bicubic, LearnedPrior, ModelConfig, Weights, load_weights, save_weights
from isrrescnet_jax.data.photo import gaussian_blur, photo_degrade
from isrrescnet_jax.evaluation.degrade import degrade
from isrrescnet_jax.evaluation.metrics import luma_psnr
from isrrescnet_jax.physics.noise import noise_level
from isrrescnet_jax.solver.iteration import accept
from isrrescnet_jax.train import muon
from isrrescnet_jax.weights import with_noise_input

ADAM = 0.2  # of Muon's learning rate, for all that is not a direction v
Params = dict[str, Any]
Batch = list[tuple[Array, Array, Array]]


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the run.

    Attributes:
        scales: each has its share of every batch.
        share: of the time.
        decays: the learning rate falls to zero, linearly; else it stays.
        parent: the phase whose weights it starts from; the run's first weights if it is left out.
        photo: reductions with blur, noise and JPEG, and a network that is told the noise level.
    """

    scales: tuple[int, ...]
    share: float
    decays: bool = True
    parent: str | None = "trunk"
    photo: bool = False


PHASES = {
    "trunk": Phase((2, 3, 4), 0.38, decays=False, parent=None),
    "x4": Phase((4,), 0.16),
    "x3": Phase((3,), 0.16),
    "x2": Phase((2,), 0.14),
    "photo": Phase((2, 3, 4), 0.16, photo=True),
}


class State(NamedTuple):
    """What a phase changes."""

    step: Array
    params: Params
    optimizer: Any
    average: Params


@dataclasses.dataclass(frozen=True)
class Minutes:
    """Train within a time."""

    data: Path
    """Folder of photographs."""
    validation: Path
    """Folder of PNG images, of which the middle of every second one is used."""
    out: Path
    """Folder for weights and log."""
    seconds: float = 535.0
    """For everything."""
    phases: tuple[str, ...] = tuple(PHASES)
    """Which, in this order."""
    init: str = "x3"
    """Weights to start from: a shipped name or a file."""
    rate: float = 5e-3
    """Peak learning rate of Muon."""
    trials: tuple[float, ...] = ()
    """Instead: train only the last of the phases, this long, with each of these rates."""
    batch: int = 18
    """Patches in a step, of all scales together."""
    side: int = 120
    """Of the patches; a multiple of the scales."""
    photo_batch: int = 6
    """The same for degraded photographs."""
    photo_side: int = 192
    """The same; 16 times a multiple of the scales, as JPEG has blocks."""
    crop: int = 192
    """Side of the validation crops."""
    dtype: str = "bfloat16"
    """Of the features."""
    seed: int = 0


def shares(batch: int, scales: tuple[int, ...]) -> list[int]:
    """How many patches of each scale."""
    return [batch // len(scales) + (i < batch % len(scales)) for i in range(len(scales))]


def initial(lr: Float[Array, "n h w 3"], scale: int) -> Float[Array, "n H W 3"]:
    """z of the first iteration: x_0 - D^T (D x_0 - y)."""
    operator = Bicubic(scale, reference=False)
    x = operator.initial(lr)
    return x - operator.gradient(x, lr)


def draw(photographs: Photographs, key: Array, options: Minutes, phase: Phase) -> Batch:
    """(z, hr, sigma) for each scale."""
    batch = []
    total = options.photo_batch if phase.photo else options.batch
    for scale, count in zip(phase.scales, shares(total, phase.scales), strict=True):
        own = jax.random.fold_in(key, scale)
        side = options.photo_side if phase.photo else options.side
        patch = device_data.patches(
            photographs, own, count, side + 2 * device_data.margin(scale)
        ).astype(jnp.float32)
        lr, hr = device_data.pair(patch, scale)
        sigma = jnp.zeros(count)
        if phase.photo:
            lr, sigma = photographed(patch, scale, own)
        batch.append((initial(lr, scale), hr, sigma))
    return batch


def photographed(
    patch: Float[Array, "n s s 3"], scale: int, key: Array
) -> tuple[Float[Array, "n h w 3"], Float[Array, " n"]]:
    """A patch with its margin as a camera might have written it, and the noise level to be told.

    A quarter is blurred, half has noise, half went through JPEG. The noise level is the true one or
    the one that will be estimated from such an image, so that the network can live with both.
    """
    one, two, three, four = jax.random.split(jax.random.fold_in(key, 1), 4)
    count = patch.shape[0]
    deviation = jax.random.uniform(one, (count,), maxval=0.6 * scale)
    blurred = jax.random.bernoulli(two, 0.25, (count,))
    patch = gaussian_blur(patch, jnp.where(blurred, deviation, 0))
    lr, sigma = photo_degrade(three, device_data.pair(patch, scale)[0])
    estimated = jax.random.bernoulli(four, 0.5, (count,))
    return lr, jnp.where(estimated, noise_level(lr), sigma)


def loss(params: Params, batch: Batch, dtype: str, config: ModelConfig) -> Float[Array, ""]:
    """Mean absolute error of all scales, which go through the network together."""
    z, hr, sigma = (jnp.concatenate(part) for part in zip(*batch, strict=True))
    features = None if dtype == "float32" else dtype
    prior = LearnedPrior.from_weights(Weights(params, config), features, precision="default")
    return jnp.mean(jnp.abs(accept(z, prior.residual(z, sigma)) - hr))


def make_step(options: Minutes, config: ModelConfig, phase: Phase) -> Any:
    """(state, photographs, key, rate) -> (state, loss)."""
    optimizer = muon(1.0)

    def step(state, photographs, key, rate):
        number, params, opt_state, average = state
        batch = draw(photographs, jax.random.fold_in(key, number), options, phase)
        value, gradient = jax.value_and_grad(loss)(params, batch, options.dtype, config)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = jax.tree_util.tree_map_with_path(
            lambda path, p, u: p + rate * (1 if path[-1].key == "v" else ADAM) * u, params, updates
        )
        average: Any = optax.incremental_update(params, average, 0.002)
        return State(number + 1, params, opt_state, average), value

    return jax.jit(step, donate_argnums=0)


class Validation:
    """PSNR on Y of the middle of validation images, the borders of the crop left out."""

    def __init__(self, options: Minutes):
        self.truth = device_data.crops(options.validation, options.crop)
        self.run = jax.jit(self.restored, static_argnums=3)
        self.z = functools.cache(self.start)

    def start(self, scale: int, noise: int) -> Float[Array, "n H W 3"]:
        """What the network sees."""
        lr = [degrade(image, scale, noise=noise, seed=i) for i, image in enumerate(self.truth)]
        return initial(jnp.asarray(np.stack(lr), jnp.float32), scale)

    @staticmethod
    def restored(params: Params, z: Array, sigma: Array, config: ModelConfig) -> Array:
        """In float32."""
        prior = LearnedPrior.from_weights(Weights(params, config))
        return accept(z, prior.residual(z, sigma))

    def psnr(self, params: Params, config: ModelConfig, scale: int, noise: int = 0) -> float:
        """Mean over the images."""
        z, sigma = self.z(scale, noise), np.full(len(self.truth), noise, np.float32)
        images = np.asarray(self.run(params, z, sigma, config)).round()
        scores = [luma_psnr(a, b, scale) for a, b in zip(images, self.truth, strict=True)]
        return float(np.mean(scores))


class Run:
    """One run: what its phases share."""

    def __init__(self, options: Minutes):
        self.options, self.began = options, time.perf_counter()
        options.out.mkdir(parents=True, exist_ok=True)
        weights = load_weights(options.init)
        self.config = dataclasses.replace(
            weights.config, scale=None, iterations=1, physics="exact", step=1.0
        )
        self.first = jax.tree.map(jnp.asarray, weights.params)
        # The projection does nothing in weights with one iteration (see `exact.py`).
        self.fixed = {"alpha": np.full(1, 20, np.float32), "w": np.zeros(1, np.float32)}
        smallest = options.side + 2 * device_data.margin(4)
        photographs = device_data.load(options.data, smallest)
        self.say(
            f"{len(photographs.start)} photographs, {len(photographs.pixels) / 1e6:.0f} Mpixel"
        )
        self.photographs = jax.device_put(photographs)
        self.validation = Validation(options)
        self.key = jax.random.key(options.seed)
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.compiling: dict[str, concurrent.futures.Future] = {}
        self.done: dict[str, Any] = {}

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.began

    def say(self, text: str, **figures: Any) -> None:
        """Print a line, and keep it."""
        line = {"elapsed": round(self.elapsed(), 1), "text": text, **figures}
        print(f"{line['elapsed']:7.1f} s  {text}", flush=True)
        with open(self.options.out / "log.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")

    def config_of(self, phase: Phase) -> ModelConfig:
        """Of the weights that it trains."""
        scale = phase.scales[0] if len(phase.scales) == 1 else None
        return dataclasses.replace(self.config, scale=scale, noise_input=phase.photo)

    def fresh(self, params: Params, phase: Phase) -> State:
        """A state that starts from these."""
        if phase.photo:
            params = with_noise_input(Weights(params, self.config)).params
        params = {name: p for name, p in params.items() if name == "network"}
        copies = [jax.tree.map(lambda a: jnp.array(a, copy=True), params) for _ in range(2)]
        return State(jnp.int32(0), copies[0], muon(1.0).init(params), copies[1])

    def compiled(self, name: str) -> concurrent.futures.Future:
        """The step of a phase, compiled while another one runs."""
        if name not in self.compiling:
            phase = PHASES[name]
            step = make_step(self.options, self.config_of(phase), phase)
            state = jax.eval_shape(lambda: self.fresh(self.first, phase))
            shapes = state, self.photographs, self.key, jnp.float32(0)
            work = lambda: step.lower(*shapes).compile()  # noqa: E731
            self.compiling[name] = self.pool.submit(work)
        return self.compiling[name]

    def write(self, name: str, state: Any, about: str) -> None:
        """The average of the parameters, as weights of this phase."""
        params = jax.tree.map(np.asarray, state.average) | self.fixed
        path = self.options.out / f"{name}.safetensors"
        save_weights(
            Weights(params, self.config_of(PHASES[name])),
            path,
            {"about": about, "recipe": "minutes.py"},
        )

    def score(self, name: str, state: State, what: str) -> None:
        """Validate, at all scales of the phase."""
        phase, found = PHASES[name], {}
        for scale in phase.scales:
            for noise in (0, 15) if phase.photo else (0,):
                label = f"x{scale}" + (f" noise {noise}" if noise else "")
                config = dataclasses.replace(self.config_of(phase), scale=None)
                found[label] = self.validation.psnr(state.average, config, scale, noise)
        text = ", ".join(f"{label} {value:.3f}" for label, value in found.items())
        self.say(f"{name} {what}: {text}", phase=name, psnr=found)

    def phase(self, name: str, seconds: float, rate: float, state: Any = None) -> Any:
        """Train for so long; the state at the end."""
        phase = PHASES[name]
        step = self.compiled(name).result()
        self.say(f"{name} compiled")
        if state is None or phase.photo:
            network = self.first if state is None else state.params
            state = self.fresh(network, phase)
        # The step uses up what it is given, and another phase may start from the same.
        state = jax.tree.map(lambda a: jnp.array(a, copy=True), state)
        began, count, written = time.perf_counter(), 0, time.perf_counter()
        waiting: collections.deque[Array] = collections.deque()
        losses: list[float] = []
        while (spent := time.perf_counter() - began) < seconds:
            now = rate * (1 - spent / seconds) if phase.decays else rate * min(1, (count + 1) / 200)
            state, value = step(state, self.photographs, self.key, jnp.float32(now))
            waiting.append(value)
            count += 1
            if len(waiting) > 4:  # or the host runs ahead of the clock
                losses.append(float(waiting.popleft()))
            if time.perf_counter() - written > max(30, self.options.seconds / 16):
                self.write(name, state, "not finished")
                self.score(name, state, f"step {count}, loss {np.mean(losses[-200:]):.3f}")
                written = time.perf_counter()
        jax.block_until_ready(state)
        spent = time.perf_counter() - began
        options = self.options
        batch, side = (
            (options.photo_batch, options.photo_side)
            if phase.photo
            else (options.batch, options.side)
        )
        pixels = count * batch * side**2
        text = f"{pixels / 1e6:.0f} Mpixel in {count} steps, {pixels / 1e6 / spent:.2f} a second"
        self.write(name, state, f"{text}, one GPU" if jax.default_backend() == "gpu" else text)
        self.say(f"{name} {text}", phase=name, pixels=pixels, steps=count, seconds=spent)
        self.score(name, state, f"rate {rate:g}")
        return state

    def all(self) -> None:
        """All phases, in what is left of the time."""
        names, last = self.options.phases, 12.0  # seconds for the last words
        for name in names:
            self.compiled(name)
        self.compiled(names[0]).result()
        for i, name in enumerate(names):
            shares = [PHASES[n].share for n in names[i:]]
            left = self.options.seconds - last - self.elapsed()
            parent = self.done.get(PHASES[name].parent or "")
            seconds = left * shares[0] / sum(shares)
            self.done[name] = self.phase(name, seconds, self.options.rate, parent)
        self.say("done")


def main(options: Minutes) -> None:
    """Run it."""
    print(jax.devices(), jax.__version__, flush=True)
    run = Run(options)
    if options.trials:
        name = options.phases[-1]
        for rate in options.trials:
            run.phase(name, options.seconds, rate)
    else:
        run.all()


if __name__ == "__main__":
    main(tyro.cli(Minutes, description=__doc__))
