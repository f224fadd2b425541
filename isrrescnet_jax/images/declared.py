"""What a file says about the size of its pictures, looked at before any of them is decoded."""

import dataclasses

from PIL import Image

from ..sizes import host_memory, said

# Bytes that reading takes at its peak, for each value of a picture: what the decoder keeps, its
# pixels in Pillow's memory and as an array, and these as floating point.
_DECODING = 12


@dataclasses.dataclass(frozen=True)
class Declared:
    """The size of the pictures in a file, as its header has it.

    Attributes:
        width, height: in pixels, of the largest.
        values: in each pixel.
        deep: whether values have more than 8 bits.
        pixels: of all pictures together; by default of the one.
        decoding: bytes that reading takes, for each value.
    """

    width: int
    height: int
    values: int = 3
    deep: bool = False
    pixels: int = 0
    decoding: int = _DECODING

    @property
    def decoded(self) -> int:
        """Bytes that it takes to read the largest picture."""
        return self.width * self.height * self.values * self.decoding

    def enlarged(self, scale: int) -> int:
        """Bytes of all pictures with `scale` times as many pixels a side, ready to be written."""
        pixels = max(self.pixels, self.width * self.height) * scale**2
        # The values, kept as floating point beside if they are deep, and a copy for the encoder.
        return pixels * (self.values * (6 if self.deep else 1) + 4)


def declared(image: Image.Image, count: int = 1) -> Declared:
    """Of a file that Pillow has opened, with `count` pictures of that size."""
    width, height = image.size
    tile: list = getattr(image, "tile", [])
    args = tile[0][3] if tile else ""
    raw = str(args[0] if isinstance(args, tuple) and args else args)
    values = 4 if image.mode in ("P", "PA") else len(image.getbands())
    deep = image.mode.startswith(("I", "F")) or ";16" in raw
    return Declared(width, height, values, deep, count * width * height)


def check_room(what: Declared, scale: int = 0, limit: int | None = None) -> None:
    """Raise ValueError if there is too little memory to read a file, and to enlarge it if asked.

    Args:
        scale: times as many pixels a side; 0 if the file is only read.
        limit: bytes that may be used; by default what is free.
    """
    room = host_memory() if limit is None else limit
    need = what.decoded + (what.enlarged(scale) if scale else 0)
    if room is None or need <= room:
        return
    size = f"{what.width}x{what.height}"
    count = round(what.pixels / max(1, what.width * what.height))
    of = f" in {count} pictures" if count > 1 else ""
    done = f" to read and enlarge {scale} times" if scale else " to read"
    raise ValueError(
        f"its header says {size} pixels{of}, which take {said(need)}{done}, but {said(room)} may "
        "be used: cut it into parts, or give more memory"
    )
