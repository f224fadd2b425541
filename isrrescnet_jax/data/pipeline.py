"""Training data: folders and TFDS in, batches of aligned random patches out.

    pairs -> repeat -> shuffle -> random patch -> this process's share -> batch

Every patch is a function of the seed and of its place in the stream alone, so the number of batches
taken so far is all the state there is, whatever the number of processes.
"""

import dataclasses
import functools
import glob
import hashlib
import io
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image
from tqdm import tqdm

from .. import images
from ..config import SCALES
from ..evaluation.degrade import Border, degrade
from ..evaluation.evaluate import match
from ..files import cache_folder

if TYPE_CHECKING:
    import grain

Image8 = UInt8[np.ndarray, "h w 3"]
Pair = dict[str, Image8]  # "lr" (h, w, 3) and "hr" (s h, s w, 3)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where training images come from, and how they become batches.

    Attributes:
        hr: folder of high-resolution images, searched with its subfolders, or "tfds:NAME/CONFIG"
            for a TFDS data set with the features `hr` and `lr`, such as "tfds:div2k/bicubic_x4".
        lr: folder of the low-resolution images that belong to them; by default they are made by
            bicubic reduction, once, and kept in `cache`.
        data_dir: folder of TFDS data sets; by default TFDS's own (~/tensorflow_datasets).
        split: split of a TFDS data set, such as "train" or "train[:90%]".
        scale: factor between the two resolutions.
        patch: side of the square patches in high-resolution pixels, a multiple of `scale`.
        batch: patches in a batch, over all devices and processes.
        repeats: patches taken from each image in an epoch. The last batch of an epoch is dropped
            if it is not full.
        augment: flip and transpose patches at random (8 variants).
        seed: of order, places and flips.
        border: how `degrade` continues images beyond their borders.
        skip_bad: leave out images that are damaged, too small or without a fitting partner, with a
            warning that names them, instead of stopping before the first step.
        memory: GiB of decoded images that are kept in memory (DIV2K needs 7). Those beyond it are
            decoded for every patch.
        cache: folder for low-resolution images that were made here; by default `lr` in
            $ISRRESCNET_CACHE (nowhere if that is empty), or ~/.cache/isrrescnet-jax/lr. May be
            deleted at any time.
        workers: processes that prepare batches; 0 uses threads, which is faster as long as the
            decoded images fit in `memory`. A run must be resumed with the number it began with.
    """

    hr: str = ""
    lr: str | None = None
    data_dir: str | None = None
    split: str = "train"
    scale: int = 4
    patch: int = 128
    batch: int = 16
    repeats: int = 16
    augment: bool = True
    seed: int = 0
    border: Border = "symmetric"
    skip_bad: bool = False
    memory: float = 8.0
    cache: str | None = None
    workers: int = 0

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}, not {self.scale}")
        if self.patch < 1 or self.patch % self.scale:
            raise ValueError(f"patch must be a multiple of the scale {self.scale}: {self.patch}")
        for name in ("batch", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("memory", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative: {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, not {self.seed}")


class Pairs:
    """Random access to image pairs; decoded ones are kept while there is room for them.

    Attributes:
        names: of the images, for messages.
        left_out: what is wrong with the images that are not among them, one line each.
    """

    def __init__(
        self,
        names: list[str],
        load: Callable[[int], Pair],
        room: float,
        left_out: Sequence[str] = (),
    ):
        """`load(i)` gives the pair `names[i]` or raises ValueError; `room` is in bytes."""
        self.names = names
        self.left_out = list(left_out)
        self._load = load
        self._keys = list(range(len(names)))  # what `load` calls those that are not left out
        self._room = room
        self._kept: dict[int, Pair] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoded images: every worker process keeps its own."""
        room = self._room + sum(map(_size, self._kept.values()))
        return vars(self) | {"_room": room, "_kept": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"_lock": threading.Lock()})

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Pair:
        key = self._keys[index]
        if key in self._kept:
            return self._kept[key]
        pair = self._load(key)
        with self._lock:
            if key not in self._kept and _size(pair) <= self._room:
                self._kept[key] = pair
                self._room -= _size(pair)
        return pair

    @property
    def all_kept(self) -> bool:
        """Whether all images are decoded and in memory."""
        return len(self._kept) >= len(self)

    def leave_out_bad(self) -> None:
        """Read everything once and leave out what cannot be used, with the reason in `left_out`."""

        def problem(index: int) -> str | None:
            try:
                self[index]
            except ValueError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lines = pool.map(problem, range(len(self)))
            bar = tqdm(lines, "checking images", len(self), leave=False, disable=None, delay=2)
            problems = list(bar)
        self.left_out += [line for line in problems if line]
        good = [i for i, line in enumerate(problems) if not line]
        self.names, self._keys = [self.names[i] for i in good], [self._keys[i] for i in good]


def _size(pair: Pair) -> int:
    """Bytes of memory."""
    return sum(image.nbytes for image in pair.values())


def check(config: DataConfig) -> list[str]:
    """Read all images; one line, with the name, for each that cannot be used to train.

    That is: damaged, smaller than a patch, or without a partner of the right name and size.
    """
    pairs = _pairs(config)
    pairs.leave_out_bad()
    return pairs.left_out


def source(config: DataConfig) -> Pairs:
    """The pairs to train on, each read once to be sure of it.

    Raises:
        ValueError: images that cannot be used (all are named, see `check`; with `skip_bad` they are
            left out instead), none that can, or no such data.
        OSError: low-resolution images cannot be kept in the cache folder.
    """
    pairs = _pairs(config)
    pairs.leave_out_bad()
    bad, total = len(pairs.left_out), len(pairs.left_out) + len(pairs)
    if bad and not (config.skip_bad and len(pairs)):
        advice = "remove them or set skip_bad" if len(pairs) else "give others"
        lines = "".join(f"\n  {line}" for line in pairs.left_out)
        raise ValueError(f"{bad} of {total} training images cannot be used; {advice}:{lines}")
    return pairs


def _pairs(config: DataConfig) -> Pairs:
    """All pairs, not looked at yet."""
    room = config.memory * 2**30 / (config.workers + 1)
    if config.hr.startswith("tfds:"):
        examples, names = _tfds(config)
        return Pairs(names, functools.partial(_load_example, examples, names, config), room)
    files, left_out = _files(config)
    names = [str(hr) for hr, _ in files]
    return Pairs(names, functools.partial(_load_files, files, config), room, left_out)


# --- folders --------------------------------------------------------------------------------------


def _files(config: DataConfig) -> tuple[list[tuple[Path, Path | None]], list[str]]:
    """HR files with their LR files, if there are any yet, and a line for each without partner."""
    hr = _find(config.hr)
    if config.lr is None:
        return [(path, None) for path in hr], []
    # Names count within a subfolder: the same one may occur in several.
    groups: dict[Path, tuple[list[Path], list[Path]]] = {}
    for side, (root, paths) in enumerate([(config.hr, hr), (config.lr, _find(config.lr))]):
        for path in paths:
            groups.setdefault(path.parent.relative_to(root), ([], []))[side].append(path)
    matched = [match(*group, config.scale) for group in groups.values()]
    return [pair for pairs, _ in matched for pair in pairs], [p for _, ps in matched for p in ps]


def _find(folder: str) -> list[Path]:
    """All images in a folder and its subfolders, links included and hidden files not."""
    if not folder:
        raise ValueError("no training images: give a folder or a TFDS data set")
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder")
    names = sorted(glob.glob("**/*", root_dir=folder, recursive=True))
    found = [Path(folder, name) for name in names if Path(name).suffix.lower() in images.FORMATS]
    if not found:
        raise ValueError(f"{folder}: no images ({', '.join(images.FORMATS)}) in this folder")
    return found


def _load_files(files: list[tuple[Path, Path | None]], config: DataConfig, index: int) -> Pair:
    path, lr_path = files[index]
    hr = _read_rgb(path)
    _check_large(path, hr, config)
    lr = _read_rgb(lr_path) if lr_path else _make_lr(hr, config)
    return _aligned(path, hr, lr, config)


def _read_rgb(path: Path) -> Image8:
    """A file as 8-bit RGB: grey is repeated, alpha dropped."""
    try:
        return _as_rgb(images.to_uint8(images.read(path).color))
    except FileNotFoundError as error:  # A dangling link.
        raise ValueError(str(error)) from None


def _as_rgb(image: UInt8[np.ndarray, "h w *c"]) -> Image8:
    """Grey as (h, w) or (h, w, 1), RGB or RGBA to RGB."""
    image = np.atleast_3d(image)
    return np.repeat(image[..., :1], 3, axis=2) if image.shape[2] < 3 else image[..., :3]


def lr_cache_folder(config: DataConfig) -> Path | None:
    """Where low-resolution images made for training are kept; None: nowhere (see `DataConfig`)."""
    if config.cache:
        return Path(config.cache)
    folder = cache_folder()
    return folder and folder / "lr"


def _make_lr(hr: Image8, config: DataConfig) -> Image8:
    """`degrade`, remembered on disk under a hash of the pixels, the scale and the border."""
    folder = lr_cache_folder(config)
    if folder is None:
        return degrade(hr, config.scale, border=config.border)
    key = hashlib.blake2b(np.ascontiguousarray(hr), digest_size=16)
    key.update(f"{hr.shape} {config.scale} {config.border}".encode())
    path = folder / f"{key.hexdigest()}.png"
    try:
        return _read_rgb(path)
    except ValueError:  # Not made yet, or damaged since.
        lr = degrade(hr, config.scale, border=config.border)
    try:
        images.write(images.Picture(lr.astype(np.float32)), path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{folder}: {reason}; name another folder with `cache`") from None
    return lr


def _check_large(name: object, hr: Image8, config: DataConfig) -> None:
    height, width = hr.shape[:2]
    if min(height, width) < config.patch:
        patch = f"a patch of {config.patch}x{config.patch}"
        raise ValueError(f"{name}: {width}x{height} pixels, smaller than {patch}")


def _aligned(name: object, hr: Image8, lr: Image8, config: DataConfig) -> Pair:
    """Both images, the larger one cut to the size of the smaller times the scale."""
    (height, width), (h, w) = hr.shape[:2], lr.shape[:2]
    if (h, w) != (height // config.scale, width // config.scale):
        sizes = f"HR {width}x{height} and LR {w}x{h}"
        raise ValueError(f"{name}: {sizes} do not belong together at scale {config.scale}")
    return {"lr": lr, "hr": hr[: h * config.scale, : w * config.scale]}


# --- TFDS -----------------------------------------------------------------------------------------


def _tfds(config: DataConfig) -> tuple[Sequence[Any], list[str]]:
    """The examples of a TFDS data set on this disk, and what to call them."""
    import tensorflow_datasets as tfds

    name = config.hr.removeprefix("tfds:")
    if config.lr is not None:
        raise ValueError(f"{name} has its own low-resolution images: leave out lr")
    try:
        examples = tfds.data_source(
            name, split=config.split, data_dir=config.data_dir, download=False
        )
    except (AssertionError, KeyError, NotImplementedError, ValueError) as error:
        folder = config.data_dir or tfds.core.constants.DATA_DIR
        reason = str(error).strip("\"'").splitlines()[0].removesuffix(" Possible root causes:")
        raise ValueError(
            f"TFDS has no {name} with the split {config.split} as array_record files in {folder}: "
            f"prepare it there first, nothing is downloaded here ({reason})"
        ) from None
    features = examples.dataset_info.features
    if not {"hr", "lr"} <= set(features):
        raise ValueError(f"{name} has the features {', '.join(features)}, but not hr and lr")
    return examples, [f"{name} {config.split}[{i}]" for i in range(len(examples))]


def _load_example(
    examples: Sequence[Any], names: list[str], config: DataConfig, index: int
) -> Pair:
    try:
        example = examples[index]
    except Exception as error:  # Decoders fail on damaged images in every way there is.
        raise ValueError(f"{names[index]}: {' '.join(str(error).split())}") from None
    hr, lr = _as_rgb(example["hr"]), _as_rgb(example["lr"])
    _check_large(names[index], hr, config)
    return _aligned(names[index], hr, lr, config)


def prepare_tfds(
    splits: Mapping[str, str | os.PathLike],
    data_dir: str | os.PathLike,
    scale: int,
    border: Border = "symmetric",
) -> str:
    """Make a TFDS data set, with the features of DIV2K, of folders of high-resolution images.

    It is written as array_record files, which are read without TensorFlow, and to be found whole
    or not at all under `data_dir`.

    Args:
        splits: folder (with subfolders) of every split, such as {"train": "photos"}.
        data_dir: folder of TFDS data sets.
        scale: factor by which `degrade` makes `lr` of `hr`.
        border: see `degrade`.

    Returns:
        What to give to `DataConfig` as `hr`: "tfds:hr_folder/bicubic_x4".

    Raises:
        ValueError: an image that cannot be read, another scale than 2, 3 or 4, or the data set
            exists already.
    """
    import tensorflow_datasets as tfds

    builder = _builder_class()(
        splits={name: _find(os.fspath(folder)) for name, folder in splits.items()},
        degrade=functools.partial(degrade, scale=scale, border=border),
        config=f"bicubic_x{scale}",
        data_dir=os.fspath(data_dir),
        file_format="array_record",
    )
    if builder.is_prepared():
        raise ValueError(f"{builder.data_dir} exists already: remove it or choose another folder")
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=offline)
    return f"tfds:{builder.name}/{builder.builder_config.name}"


@functools.cache
def _builder_class() -> type:
    import tensorflow_datasets as tfds

    # Not registered: what it has prepared is read from the files alone, here as elsewhere.
    class HrFolder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """High-resolution images and their bicubic reductions."""

        BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(name=f"bicubic_x{scale}", version="1.0.0") for scale in SCALES
        ]

        def __init__(self, *, splits, degrade, **options):
            self._splits, self._degrade = splits, degrade
            super().__init__(**options)

        def _info(self):
            features = {"lr": tfds.features.Image(), "hr": tfds.features.Image()}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("lr", "hr")
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(paths) for name, paths in self._splits.items()}

        def _generate_examples(self, paths):
            for key, path in enumerate(paths):
                hr = _read_rgb(path)
                # TFDS needs TensorFlow to encode arrays, but takes PNG files as they are.
                yield key, {"lr": _png(self._degrade(hr)), "hr": _png(hr)}

    return HrFolder


def _png(image: Image8) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file


# --- patches and batches --------------------------------------------------------------------------


def random_patch(
    pair: Pair, rng: np.random.Generator, *, patch: int, scale: int, augment: bool
) -> Pair:
    """A random square of a pair, the LR one at (i, j) and the HR one at (s i, s j).

    Args:
        pair: as `Pairs` gives it.
        rng: draws i and j uniformly from all places, and the variant.
        patch: side of the HR square.
        augment: flip and transpose both alike, into one of 8 variants (see `dihedral`).
    """
    size = patch // scale
    i, j = (int(rng.integers(side - size + 1)) for side in pair["lr"].shape[:2])
    variant = int(rng.integers(8)) if augment else 0
    return {
        "lr": _square(pair["lr"], i, j, size, variant),
        "hr": _square(pair["hr"], scale * i, scale * j, patch, variant),
    }


def _square(image: Image8, i: int, j: int, size: int, variant: int) -> UInt8[np.ndarray, "n n 3"]:
    # As items of three bytes: NumPy turns them around twice as fast as single ones.
    pixels = image.view("V3")[i : i + size, j : j + size, 0]
    turned = np.ascontiguousarray(dihedral(pixels, variant))
    return turned.view(np.uint8).reshape(size, size, 3)


def dihedral(image: Shaped[np.ndarray, "n n *c"], variant: int) -> Shaped[np.ndarray, "n n *c"]:
    """One of the 8 symmetries of the square: bits 0, 1, 2 flip rows, flip columns, transpose."""
    image = image[:: -1 if variant & 1 else 1, :: -1 if variant & 2 else 1]
    return image.swapaxes(0, 1) if variant & 4 else image


def train_batches(
    config: DataConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
    pairs: Pairs | None = None,
) -> "grain.DatasetIterator":
    """An endless iterator over the batches of one process.

    All processes together step through the same global batches, however many they are: each takes
    every `process_count`-th patch, so none is given to two of them.

    Args:
        config: what to make of which images.
        process_index, process_count: whose share.
        pairs: the images, where `source` has read them already, with patches as large or larger.

    Returns:
        Grain's iterator over {"lr": (n, p, p, 3), "hr": (n, s p, s p, 3)}, uint8, with
        n = batch / process_count and s p = patch. Its `get_state()` is the number of batches taken
        (with `workers` that of each worker) and can be given to any process's `set_state`.
        `close()` ends its threads or processes.

    Raises:
        ValueError, OSError: see `source`; or the batch cannot be shared between the processes, or
            an epoch has less than one batch.
    """
    import grain
    from absl import flags

    if config.batch % process_count:
        raise ValueError(f"a batch of {config.batch} cannot be shared by {process_count} processes")
    pairs = _announced(source(config), process_index) if pairs is None else pairs
    usable = len(pairs) * config.repeats // config.batch * config.batch
    if not usable:
        raise ValueError(
            f"{len(pairs)} images x {config.repeats} repeats do not fill a batch of "
            f"{config.batch}: raise repeats to {-(-config.batch // len(pairs))} or more"
        )
    pick = functools.partial(
        random_patch, patch=config.patch, scale=config.scale, augment=config.augment
    )
    # Repeated before shuffled: Grain takes long to shuffle a few hundred items.
    patches = grain.MapDataset.source(pairs).seed(config.seed).repeat(config.repeats).shuffle()
    # Random before shared: a patch does not depend on the number of processes.
    patches = patches[:usable].random_map(pick)[process_index::process_count]
    batches = patches.batch(config.batch // process_count).repeat()
    # Decoding releases Python's lock; cutting patches holds it, and more threads only fight for it.
    threads = min(2 if pairs.all_kept else 16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    stream = batches.to_iter_dataset(options)
    if config.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain asks absl's flags before it starts processes.
        options = grain.MultiprocessingOptions(config.workers, per_worker_buffer_size=4)
        stream = stream.mp_prefetch(options)
    return iter(stream)


def _announced(pairs: Pairs, process_index: int) -> Pairs:
    """Warn of the images that were left out, in one of the processes."""
    if process_index == 0:
        for line in pairs.left_out:
            _log.warning("left out: %s", line)
    return pairs


class Streams:
    """Batches of several scales and patch sizes, all from the same images.

    There is one stream of `train_batches` for each pair (scale, patch), begun when it is first
    asked for; patch sizes share the decoded images of their scale, and the scales share
    `config.memory`. That of the scale and patch in `config` is the stream of `config` itself.
    """

    def __init__(
        self,
        config: DataConfig,
        scales: Sequence[int] = (),
        patches: Sequence[int] = (),
        *,
        process_index: int = 0,
        process_count: int = 1,
    ):
        """Read all images, and see that they are large enough for the largest patch.

        Args:
            config: what to make of which images.
            scales, patches: all that will be asked for; those of `config` by default.
            process_index, process_count: see `train_batches`.

        Raises:
            ValueError, OSError: see `train_batches`.
        """
        self._config = config
        self._process = {"process_index": process_index, "process_count": process_count}
        self._streams: dict[tuple[int, int], grain.DatasetIterator] = {}
        self._pairs: dict[int, Pairs] = {}
        scales = sorted(set(scales or (config.scale,)))
        memory = config.memory / len(scales)
        for scale in scales:
            largest = max(patches or (config.patch,))
            wanted = dataclasses.replace(config, scale=scale, patch=largest, memory=memory)
            self._pairs[scale] = source(wanted)
        _announced(self._pairs[scales[0]], process_index)
        self._stream(scales[0], largest)  # whose length is checked

    def _stream(self, scale: int, patch: int) -> "grain.DatasetIterator":
        if (scale, patch) not in self._streams:
            config = self._config
            if (scale, patch) != (config.scale, config.patch):
                # Another seed, or every stream would begin with the same images.
                seed = (config.seed + 10_000 * scale + patch) % 2**32
                config = dataclasses.replace(config, scale=scale, patch=patch, seed=seed)
            stream = train_batches(config, pairs=self._pairs[scale], **self._process)
            self._streams[scale, patch] = stream
        return self._streams[scale, patch]

    def next(self, scale: int, patch: int) -> dict[str, UInt8[np.ndarray, "n h w 3"]]:
        """The next batch of this stream."""
        return next(self._stream(scale, patch))

    def get_state(self) -> dict[str, Any]:
        """The positions of all streams, as plain JSON values."""
        positions = {f"{s} {p}": stream.get_state() for (s, p), stream in self._streams.items()}
        return {"streams": positions}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave, here or in another process.

        The plain state of a single stream is taken as that of the scale and patch in `config`.
        """
        config = self._config
        positions = state.get("streams", {f"{config.scale} {config.patch}": state})
        self.close()
        for name, position in positions.items():
            scale, patch = map(int, name.split())
            self._stream(scale, patch).set_state(position)

    def close(self) -> None:
        """End all threads or processes."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
