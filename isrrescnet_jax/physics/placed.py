"""An operator at a size: with it, all that depends on the height and the width of the image."""

import dataclasses
from typing import Any

from jaxtyping import Array, Inexact

from ..representation import in_one_line
from ..trees import pytree
from . import sampling
from .axis import Band, Taps

Low = Inexact[Array, "n h w c"]
High = Inexact[Array, "n H W c"]
Axis = dict[str, Any]  # what an operator needs to know of an axis: `Taps`, `Band`s, arrays


@pytree
@dataclasses.dataclass(frozen=True)
class Placed:
    """An operator with all that depends on the size of the image; a pytree.

    One program then serves images of all sizes, where the arrays are its inputs; see
    `solver.canvas`, which pads them, and `part`.
    """

    operator: Any
    rows: Axis
    columns: Axis

    __repr__ = in_one_line

    @property
    def scale(self) -> int:
        """s."""
        return self.operator.scale

    def forward(self, x: High) -> Low:
        """D x."""
        return self.operator._forward(x, self.rows, self.columns)

    def adjoint(self, y: Low) -> High:
        """D^T y."""
        return self.operator._adjoint(y, self.rows, self.columns)

    def upsample(self, y: Low) -> High:
        """U y."""
        return self.operator._upsample(y, self.rows, self.columns)

    def gradient(self, v: High, y: Low) -> High:
        """U (D v - y)."""
        return self.upsample(self.forward(v) - y)

    def initial(self, y: Low) -> High:
        """x_0."""
        return sampling.resize(y, self.rows["initial"], self.columns["initial"])

    def part(self, first: int, count: int) -> "Placed":
        """For low-resolution rows `first` ... `first` + `count` of the image.

        Rows within `reach` of the others are not those of the whole image.
        """

        def cut(value: Any) -> Any:
            if isinstance(value, Taps | Band):
                return value.part(first, count)
            return value[first : first + count]

        return dataclasses.replace(self, rows={key: cut(v) for key, v in self.rows.items()})
