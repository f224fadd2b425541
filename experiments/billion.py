"""What a million and a billion photographs would take: chips, cores and bytes.

    python -m experiments.billion [--rounds 5] [--out experiments/billion.json]

Measured here, on one core: seconds to decode a photograph and to encode a result, and the bytes of
both; of the result for one megapixel, and in proportion. Taken from the compiled programs
(`gpu_plan.json`, `tpu_plan.json`): how fast an H100 and eight chips of v5e could enlarge them at
most. No chip ran. A v5e is taken to reach the share of its peak that the compiler expects of it in
training; inference was not compiled for it.
"""

import functools
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from PIL import Image

import isrrescnet_jax as isr
from experiments import harness, tpu_plan
from isrrescnet_jax import images
from isrrescnet_jax.cli.streams import encoded

FOLDER = Path(__file__).parent
SCALE = 4
SIZES = {0.25: (512, 512), 2.0: (1224, 1632)}  # megapixels -> height, width
COUNTS = (10**6, 10**9)
ENDINGS = {"png": "PNG", "jpg": "JPEG"}


def seconds(call: Callable[[], Any], rounds: int) -> float:
    """Median of the processor's time, which other work on the machine does not count in."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return median(times)


def measured(height: int, width: int, result: images.Picture, rounds: int) -> dict[str, Any]:
    """Of one photograph, as JPEG, and of its result in each format, in proportion to `result`."""
    file = io.BytesIO()
    Image.fromarray(harness.photograph(height, width)).save(file, "JPEG", quality=90)
    data = file.getvalue()
    decode = seconds(lambda: list(images.film_of(data, "photograph").pictures), rounds)
    found: dict[str, Any] = {"bytes_in": len(data), "decode_seconds": decode}
    shown = result.color.shape[0] * result.color.shape[1]
    times = height * width * SCALE**2 / shown
    for ending, format in ENDINGS.items():
        encode = functools.partial(encoded, images.Film([result]), format)
        found |= {
            f"{ending}_bytes": round(times * len(encode())),
            f"{ending}_encode_seconds": times * seconds(encode, rounds),
        }
    return found


def chips() -> dict[str, float]:
    """Megapixels of results per second, by what is paid for: an H100, eight chips of v5e."""
    gpu = json.loads((FOLDER / "gpu_plan.json").read_text())["rows"]
    (inference,) = (r for r in gpu if r["task"] == "inference" and r["iterations"] == 1)
    tpu = json.loads((FOLDER / "tpu_plan.json").read_text())["rows"]
    row = next(r for r in tpu if r["slice"] == "v5e:2x2" and r["batch"] == 8)
    reached = row["flops"] / (row["cycles"] / tpu_plan.CHIPS["v5e"].clock)
    return {
        "H100": inference["megapixels_per_second_H100"],
        "v5e-8": 8 * reached / inference["flops_per_pixel"] / 1e6,
    }


def plan(size: float, one: dict[str, Any]) -> list[dict[str, Any]]:
    """For both kinds of chips and each format of the results."""
    height, width = SIZES[size]
    result = height * width * SCALE**2 / 1e6
    rows = []
    for chip, speed in chips().items():
        for ending in ENDINGS:
            per_second = speed / result
            work = one["decode_seconds"] + one[f"{ending}_encode_seconds"]
            moved = one["bytes_in"] + one[f"{ending}_bytes"]
            rows.append(
                {
                    "megapixels": size,
                    "chips": chip,
                    "format": ending,
                    "images_per_second": per_second,
                    "cores_that_feed_it": per_second * work,
                    "megabytes_per_second": per_second * moved / 1e6,
                    "hours": {f"{n:.0e}": n / per_second / 3600 for n in COUNTS},
                    "terabytes": {f"{n:.0e}": n * moved / 1e12 for n in COUNTS},
                }
            )
    return rows


def main(rounds: int = 5, out: Path = FOLDER / "billion.json") -> None:
    """Measure, and print the plan.

    Args:
        rounds: times that everything is measured.
        out: file for the figures.
    """
    part = harness.middle(harness.photograph(512, 512), 1024 // SCALE)
    result = images.Picture(isr.upscale(part, SCALE))
    found = {size: measured(*sides, result, rounds) for size, sides in SIZES.items()}
    rows = [row for size, one in found.items() for row in plan(size, one)]
    content = {"measured": [{"megapixels": size} | one for size, one in found.items()]}
    harness.write_json(out, content | {"plan": rows}, "numpy", "pillow")
    for row in rows:
        print(row)


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
