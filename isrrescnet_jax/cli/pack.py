"""`isrrescnet pack`."""

import dataclasses
import sys
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from .startup import uncollected


@dataclasses.dataclass(frozen=True)
class Pack:
    """Make shards to train from, in a folder or a bucket, out of folders of pictures.

    The same command continues where one was interrupted.
    """

    folders: Positional[tuple[str, ...]] = ()
    """Folders of high-resolution pictures, searched with their subfolders."""
    out: Annotated[str | None, arg(aliases=["-o"])] = None
    """Folder for the shards, or gs://BUCKET/FOLDER, s3://BUCKET/FOLDER and the like."""
    scale: Annotated[Literal[1, 2, 3, 4], arg(aliases=["-s"])] = 4
    """Factor between the two resolutions; 1: pictures alone."""
    lr: tuple[str, ...] = ()
    """Folders of low-resolution pictures, one for each; by default they are made."""
    crop: int = 256
    """Largest side of the pieces that pictures are cut into; 0 leaves them whole."""
    patch: int = 128
    """Largest patch that will be trained on; smaller pictures are left out and named."""
    border: Literal["symmetric", "replicate"] = "symmetric"
    """Beyond its edge a picture is mirrored, or its edge pixels are repeated."""
    shards: int | None = None
    """How many; best a multiple of the number of hosts. By default of about 16 MB each, a multiple
    of 64 or a power of two."""
    seed: int = 0
    """Of the order of the pictures in the shards."""
    verify: str | None = None
    """Instead: compare the shards of this folder or address with their checksums."""

    def run(self) -> int:
        """Pack; 0, or 2 if a picture was left out or a checksum does not match."""
        with uncollected():
            from ..data import packed, packing
            from ..data.config import DataConfig

        if self.verify is not None:
            if self.folders or self.out:
                raise ValueError("--verify DEST stands alone")
            index, problems = packed.read_index(self.verify), packed.verify(self.verify)
            for line in problems:
                print(f"isrrescnet: {line}", file=sys.stderr)
            if not problems:
                print(f"{self.verify}: {index.described}: all checksums match")
            return 2 if problems else 0
        if not self.folders:
            raise ValueError("name at least one folder of pictures (see --help)")
        if self.out is None:
            raise ValueError("name a folder or an address for the shards: --out DEST")
        config = DataConfig(
            scale=self.scale,
            patch=self.patch // self.scale * self.scale,
            border=self.border,
            seed=self.seed,
        )
        try:
            how = {"config": config, "crop": self.crop, "shards": self.shards}
            index = packing.pack(packing.plan(self.folders, self.lr, **how), self.out)
        except KeyboardInterrupt:
            print("\nisrrescnet: interrupted; the same command continues", file=sys.stderr)
            return 130
        print(f"{self.out}: {index.described}")
        for line in (line for lines in index.remarks.values() for line in lines):
            print(f"isrrescnet: {line}", file=sys.stderr)
        for line in index.left_out:
            print(f"left out: {line}", file=sys.stderr)
        return 2 if index.left_out else 0
