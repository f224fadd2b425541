"""Ours beside plain JAX and DeepInverse: lines of code, time, memory, and that gradients agree.

    pip install deepinv && python -m experiments.side_by_side [--json F]

Photographs are deblurred (a periodic 5x5 blur with noise) by proximal gradient steps without
momentum and a denoiser of three convolutions with 32 features. What is measured is the gradient of
the mean squared error by the step and by all weights: through K iterations, and at a fixed point,
there by the implicit function theorem and without Jacobian. All start from the same weights and
images, in float64 unless told, on a CPU.

Lines are those of the functions and classes that a user writes (`side_by_side_ours`, `_plain` and
`_deepinv`), without docstrings, comments, blank lines and imports. Every row has a process of its
own and they take turns. Seconds are medians with their range; the first gradient, which compiles,
stands alone. Peaks are resident memory beyond what the process had before its first gradient: with
that one, and of those after it. Agreement is |g - ours| / |ours| of the step, kernel or bias where
it is worst; above 1e-5 in float64 the program ends with an error.

In float64 gradients are compared; PyTorch's quick convolutions are for float32 alone, so look at
times and memory with --dtype float32 as well, where the fixed point is sought to 1e-5 only.

Where other work runs, times are as good as the machine was quiet; the file has its load. PyTorch's
threads wait asleep (OMP_WAIT_POLICY=PASSIVE), as spinning costs it up to ten times as much there.
"""

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import io
import os
import time
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from . import harness
from .side_by_side_problem import Problem

Call = Callable[[], Any]  # one gradient, waited for
Vectors = Callable[[Any], list[np.ndarray]]  # step, kernels and biases of a gradient
TOLERANCE = 1e-5


# --- the three ------------------------------------------------------------------------------------


def in_jax(
    problem: Problem, gradient: Callable[..., Any], flax: bool, jit: bool
) -> tuple[Call, Vectors]:
    """Weights, images and the gradient in JAX."""
    import jax
    import jax.numpy as jnp

    def arrays(tree: Any) -> Any:
        return jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), tree)

    network: Any = problem.layers()
    if flax:
        pairs = enumerate(network)
        network = {"params": {f"Conv_{i}": {"bias": b, "kernel": k} for i, (k, b) in pairs}}
    parameters, *images = arrays(
        [{"network": network, "step": problem.step}, *problem.photographs()]
    )
    of = jax.jit(gradient) if jit else gradient

    def vectors(found: Any) -> list[np.ndarray]:
        layers = found["network"]
        if flax:
            layers = [(a["kernel"], a["bias"]) for a in layers["params"].values()]
        return [np.ravel(a) for a in (found["step"], *(a for layer in layers for a in layer))]

    return lambda: jax.block_until_ready(of(parameters, *images)), vectors


def ours(problem: Problem, way: str, **options: Any) -> tuple[Call, Vectors]:
    """This library, with a way back."""
    import jax.numpy as jnp

    import isrrescnet_jax as isr

    code: Any = importlib.import_module("experiments.side_by_side_ours")
    if problem.iterations is None:
        limits: dict[str, Any] = {"tolerance": problem.tolerance, "steps": problem.limit}
        options = {name: isr.Neumann(terms) for name, terms in options.items()} | limits
    backward = getattr(isr, way)(**options)
    kernel = jnp.asarray(problem.kernel(), problem.dtype)
    gradient = code.gradient(kernel, problem.iterations or 1, backward)
    return in_jax(problem, gradient, True, True)


def plain(problem: Problem, function: str, jit: bool = True) -> tuple[Call, Vectors]:
    """JAX alone."""
    import jax.numpy as jnp

    code: Any = importlib.import_module("experiments.side_by_side_plain")
    kernel = jnp.asarray(problem.kernel(), problem.dtype)
    if problem.iterations is None:
        gradient = getattr(code, function)(kernel, problem.tolerance, problem.limit)
    else:
        gradient = getattr(code, function)(kernel, problem.iterations)
    return in_jax(problem, gradient, False, jit)


def theirs(
    problem: Problem, denoiser: str = "Denoiser", compiled: bool = False, **deq: Any
) -> tuple[Call, Vectors]:
    """DeepInverse."""
    import deepinv  # pyright: ignore[reportMissingImports]
    import torch

    code: Any = importlib.import_module("experiments.side_by_side_deepinv")
    torch.set_num_threads(harness.cores())
    dtype = getattr(torch, problem.dtype)
    network = getattr(code, denoiser)().to(dtype)
    with torch.no_grad():
        for layer, (kernel, bias) in zip(network.net[::2], problem.layers(), strict=True):
            layer.weight.copy_(torch.tensor(kernel).permute(3, 2, 0, 1))
            layer.bias.copy_(torch.tensor(bias))
    if compiled:
        network.compile()
    options: dict[str, Any] = {}
    if problem.iterations is None:
        config = deepinv.optim.optimizers.DEQConfig(max_iter_backward=problem.limit, **deq)
        options = {"DEQ": config, "early_stop": True, "thres_conv": problem.tolerance}
    kernel = torch.tensor(problem.kernel(), dtype=dtype)
    iterations = problem.iterations or problem.limit
    of = code.gradient(kernel, problem.size, network, iterations, problem.step, **options)
    y, target = (
        torch.tensor(x, dtype=dtype).permute(0, 3, 1, 2).contiguous() for x in problem.photographs()
    )

    def vectors(found: Sequence[Any]) -> list[np.ndarray]:
        back = (a.permute(2, 3, 1, 0) if a.ndim == 4 else a for a in found)
        return [np.ravel(a.numpy()) for a in back]

    return lambda: of(y, target), vectors


# --- the rows of the table ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to compute a gradient.

    Attributes:
        name: in the table.
        make: (problem, *options) -> the gradient.
        options: for `make`.
        names: the functions and classes that a user writes.
    """

    name: str
    make: Callable[..., tuple[Call, Vectors]]
    options: dict[str, Any]
    names: tuple[str, ...]

    def lines(self) -> int:
        """How many a user writes."""
        ending = {ours: "ours", plain: "plain", theirs: "deepinv"}[self.make]
        source = Path(__file__).with_name(f"side_by_side_{ending}.py").read_text()
        return count_lines(source, self.names)


OURS = ("Network", "prior", "gradient")
PLAIN = ("conv", "blur", "network", "iterate")
THEIRS = ("Denoiser", "gradient")
UNROLLED = [
    Row("ours, Full()", ours, {"way": "Full"}, OURS),
    Row("ours, Checkpointed()", ours, {"way": "Checkpointed"}, OURS),
    Row("plain JAX, jit", plain, {"function": "gradient"}, (*PLAIN, "gradient")),
    Row("plain JAX, no jit", plain, {"function": "gradient", "jit": False}, (*PLAIN, "gradient")),
    *(
        Row(f"plain JAX, jit, {words}", plain, {"function": name}, (*PLAIN, name))
        for words, name in (
            ("checkpoint", "gradient_checkpointed"),
            ("scan of checkpoint", "gradient_scanned"),
        )
    ),
    Row("DeepInverse", theirs, {}, THEIRS),
    Row(
        "DeepInverse, checkpoint",
        theirs,
        {"denoiser": "Checkpointed"},
        (*THEIRS, "Checkpointed"),
    ),
    Row("DeepInverse, torch.compile", theirs, {"compiled": True}, THEIRS),
]
ROOT = (*PLAIN, "fixed_point")
IMPLICIT = [
    Row("ours, Implicit(), GMRES", ours, {"way": "Implicit"}, OURS),
    Row(
        "plain JAX, custom_vjp and GMRES",
        plain,
        {"function": "gradient_implicit"},
        (*ROOT, "gradient_implicit"),
    ),
    Row("DeepInverse, DEQ", theirs, {}, THEIRS),
]
JACOBIAN_FREE = [
    Row("ours, Implicit(Neumann(0))", ours, {"way": "Implicit", "solver": 0}, OURS),
    Row(
        "plain JAX, Jacobian-free",
        plain,
        {"function": "gradient_jacobian_free"},
        (*ROOT, "gradient_jacobian_free"),
    ),
    Row("DeepInverse, DEQ, Jacobian-free", theirs, {"jacobian_free": True}, THEIRS),
]


def count_lines(source: str, names: Sequence[str]) -> int:
    """Lines of these functions and classes without docstrings, comments and blank lines."""
    found = {getattr(node, "name", None): node for node in ast.parse(source).body}
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            code.update(range(token.start[0], token.end[0] + 1))
    lines: set[int] = set()
    for name in names:
        top: Any = found[name]
        first = min([top.lineno, *(decorator.lineno for decorator in top.decorator_list)])
        lines.update(range(first, top.end_lineno + 1))
        for node in ast.walk(top):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if ast.get_docstring(node) is not None:
                text: Any = node.body[0]
                lines.difference_update(range(text.lineno, text.end_lineno + 1))
    return len(lines & code)


# --- measuring ------------------------------------------------------------------------------------


def fresh_peak() -> None:
    """Let the peak of this process's memory start from what it has now, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measured(problem: Problem, row: Row) -> Callable[[], dict[str, Any]]:
    """A function that takes a turn: seconds and peak; at first also the gradient."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when PyTorch is loaded
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_X64"] = str(problem.dtype == "float64")
    call, vectors = row.make(problem, **row.options)
    before = harness.memory("VmRSS")
    turns = []

    def turn() -> dict[str, Any]:
        fresh_peak()
        start = time.perf_counter()
        found = call()
        result: dict[str, Any] = {"seconds": time.perf_counter() - start}
        peak = harness.memory("VmHWM")
        growth = None if peak is None or before is None else peak - before
        result |= {"peak": growth, "before": before}
        if not turns:
            result["gradient"] = vectors(found)
        turns.append(None)
        return result

    return turn


def disagreement(found: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """|g - r| / |r| where it is worst."""
    pairs = zip(found, reference, strict=True)
    return max(float(np.linalg.norm(g - r) / np.linalg.norm(r)) for g, r in pairs)


def megabytes(size: int | None) -> str:
    """For the table."""
    return "" if size is None else f"{size / 1e6:.0f}"


def left_out(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """The rows that can be measured, and a line about the others."""
    if importlib.util.find_spec("deepinv"):
        return list(rows), ""
    line = "DeepInverse is not installed (pip install deepinv): its rows are left out"
    return [row for row in rows if row.make is not theirs], line


def compare(problem: Problem, rows: Sequence[Row], rounds: int, table: harness.Table) -> list[Any]:
    """Rows of a table, as dictionaries; the first is what others are compared with."""
    found: dict[str, list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for row in rows:
            worker = stack.enter_context(harness.Worker(measured, problem, row))
            workers[row.name], found[row.name] = worker, [worker()]
        for _ in range(rounds):
            for name, worker in workers.items():
                found[name].append(worker())
    reference, results = found[rows[0].name][0]["gradient"], []
    for row in rows:
        first, *turns = found[row.name]
        error = disagreement(first["gradient"], reference)
        seconds = [turn["seconds"] for turn in turns]
        peaks = [turn["peak"] for turn in turns if turn["peak"] is not None]
        later = max(peaks) if peaks else None
        table.row(
            f"{problem.name}: {row.name}",
            row.lines(),
            harness.spread(seconds, 3),
            f"{first['seconds']:.2f}",
            megabytes(first["peak"]),
            megabytes(later),
            megabytes(first["before"]),
            f"{error:.0e}" if row is not rows[0] else "",
        )
        result = {"problem": dataclasses.asdict(problem), "row": row.name, "lines": row.lines()}
        result |= {"seconds": seconds, "first": first["seconds"], "first_peak": first["peak"]}
        result |= {"peak": later, "before": first["before"], "disagreement": error}
        results.append(result | {"load": os.getloadavg()[0]})
    return results


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        iterations: K.
        fixed_point: the fixed point, too.
        size: side of the photographs.
        images: how many.
        dtype: of everything.
        rounds: how often all take turns; the median counts.
        json: file for the numbers.
    """

    iterations: tuple[int, ...] = (10, 30)
    fixed_point: bool = True
    size: int = 64
    images: int = 2
    dtype: Literal["float64", "float32"] = "float64"
    rounds: int = 7
    json: Path | None = None


def main(comparison: Comparison) -> None:
    """Print a table, write the numbers, and end with an error if gradients differ."""
    packages = ["isrrescnet-jax", "jax"]
    if importlib.util.find_spec("deepinv"):
        packages += ["torch", "deepinv"]
    lines = (harness.environment(*packages), comparison, left_out([])[1])
    print(*filter(None, lines), sep="\n", flush=True)
    table = harness.Table(
        "",
        "lines",
        "s per gradient",
        "first, s",
        "its peak, MB",
        "peak, MB",
        "before, MB",
        "differs",
    )
    groups: list[tuple[int | None, list[Row]]] = [(k, UNROLLED) for k in comparison.iterations]
    if comparison.fixed_point:
        groups += [(None, IMPLICIT), (None, JACOBIAN_FREE)]
    results: list[Any] = []
    for iterations, rows in groups:
        problem = Problem(iterations, comparison.size, comparison.images, comparison.dtype)
        results += compare(problem, left_out(rows)[0], comparison.rounds, table)
        harness.write_json(comparison.json, results, *packages)
    worst = max(results, key=lambda result: result["disagreement"])
    if comparison.dtype == "float64" and worst["disagreement"] > TOLERANCE:
        raise SystemExit(f"{worst['row']} differs by {worst['disagreement']:.1e} from ours")


if __name__ == "__main__":
    main(tyro.cli(Comparison, description=__doc__))
