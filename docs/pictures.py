"""All pictures of the documentation, with one command: `python docs/pictures.py`.

Of the photograph examples/astronaut.png, 128x128 pixels (NASA, public domain), and of a line.
"""

from pathlib import Path

import jax.numpy as jnp
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import isrrescnet_jax as isr

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "pictures"
KINDS = {"reference": True, "exact": False}


def draw(name: str, pictures: dict[str, np.ndarray], width: float = 2.4) -> None:
    """Pictures side by side, each pixel as a square, with their titles."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(width * len(pictures), width + 0.3))
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(np.squeeze(picture), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(OUT / name, dpi=110, pil_kwargs={"optimize": True})
    plt.close(figure)


def shown(image) -> np.ndarray:
    """One image of a batch in bytes."""
    return np.clip(np.rint(np.asarray(image[0])), 0, 255).astype(np.uint8)


def borders(photograph: np.ndarray) -> None:
    """The upper left corner of what the iterations start from."""
    y = jnp.asarray(photograph, jnp.float32)[None]
    initial = {
        kind: shown(isr.Bicubic(4, reference=reference).initial(y))[:72, :72]
        for kind, reference in KINDS.items()
    }
    draw("borders.png", {"y": photograph[:18, :18]} | initial)


def fractions() -> None:
    """A fine slanted line, reduced and enlarged by both."""
    rows, columns = np.mgrid[:96, :96]
    line = 255 * np.exp(-((columns - 0.35 * rows - 30) ** 2) / 18)
    x = jnp.asarray(line, jnp.float32)[None, :, :, None]
    y = isr.Bicubic(4, reference=False).forward(x)
    enlarged = {
        "reference: U y": isr.Bicubic(4, reference=True).upsample(y),
        "exact: initial(y)": isr.Bicubic(4, reference=False).initial(y),
    }
    cut = slice(24, 72)
    pictures = {"x": shown(x), "y = D x": shown(y).repeat(4, 0).repeat(4, 1)}
    pictures |= {title: shown(image) for title, image in enlarged.items()}
    draw("fractions.png", {title: p[cut, cut] for title, p in pictures.items()})


def adjoints() -> None:
    """What one low-resolution pixel adds to the gradient: U of a single bright pixel."""
    y = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1.0)
    pictures = {}
    for kind, reference in KINDS.items():
        response = np.asarray(isr.Bicubic(4, reference=reference).upsample(y)[0])
        peak = f"{response.max():.2f}".rstrip("0").rstrip(".")
        pictures[f"{kind}, peak {peak}"] = 80 + 175 * response / response.max()
    draw("adjoints.png", {"y": 80 + 175 * y[0]} | pictures)


def main() -> None:
    """Write them."""
    OUT.mkdir(exist_ok=True)
    photograph = np.asarray(Image.open(ROOT / "examples" / "astronaut.png").convert("RGB"))
    borders(photograph)
    fractions()
    adjoints()


if __name__ == "__main__":
    main()
