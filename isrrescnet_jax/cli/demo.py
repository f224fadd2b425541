"""`isrrescnet demo`."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from ..sizes import parse_bytes
from .model import Model
from .startup import uncollected

if TYPE_CHECKING:
    import isrrescnet_jax.upscaler

    from ..demo.work import Offer, Wish


@dataclasses.dataclass(frozen=True)
class Demo:
    """Serve a page on which pictures are dropped, upscaled and looked at."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port to listen on."""
    weights: Annotated[tuple[str, ...], arg(aliases=["-w"])] = ()
    """.safetensors files, or hf://user/name of the Hugging Face hub, to offer beside the shipped
    ones."""
    max_megapixels: float = 8.0
    """Largest work of a visitor: megapixels of the result, times iterations."""
    max_file: str = "20M"
    """Largest file that a visitor may send."""
    queue: int = 16
    """How many visitors may wait; one picture is done at a time."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the network's features. auto: bfloat16 on GPUs and TPUs, where it is faster."""
    root_path: str = ""
    """Path below which a proxy shows the page, such as /upscale."""
    cache: bool = True
    """Keep compiled programs between runs (in ~/.cache/isrrescnet-jax; see `isrrescnet info`)."""

    def run(self) -> int:
        """Serve it until Ctrl-C."""
        if not self.max_megapixels > 0:
            raise ValueError(f"--max-megapixels must be positive, not {self.max_megapixels}")
        if self.queue < 1:
            raise ValueError(f"--queue must be at least 1, not {self.queue}")
        size = parse_bytes(self.max_file, "--max-file")
        with uncollected():
            from ..demo import server, work

        server.check_free(self.host, self.port)
        limits = work.Limits(self.max_megapixels, size, self.queue)
        offers, files = self._offers()
        prepare = functools.partial(self._prepared, offers, files)
        answer = functools.partial(work.answer, offers=offers, prepare=prepare, limits=limits)
        server.serve(offers, limits, answer, self.host, self.port, self.root_path)
        return 0

    def _offers(self) -> tuple[dict[str, "Offer"], dict[str, str]]:
        """What visitors may choose, and the weights that each name means."""
        import numpy as np

        from .. import hub
        from ..demo.work import Offer, noise_acts
        from ..weights import load_weights_and_metadata, shipped_weights, weights_file

        files = {name: name for name in shipped_weights()}
        for given in self.weights:
            file = weights_file(given)
            name = given if hub.is_name(given) else file.stem
            if name in files:
                raise ValueError(f"--weights {given}: there are two called {name}: rename the file")
            files[name] = str(file)
        offers = {}
        for name, file in files.items():
            weights, _ = load_weights_and_metadata(file)
            acts = noise_acts(np.exp(np.asarray(weights.params["alpha"])))
            offers[name] = Offer(weights.config.scale, weights.config.iterations, acts)
        return offers, files

    def _prepared(
        self, offers: dict[str, "Offer"], files: dict[str, str], wish: "Wish"
    ) -> tuple["isrrescnet_jax.upscaler.Upscaler", str]:
        """The network as `isrrescnet upscale` has it with the same options, and what it records."""
        every = wish.iterations == offers[wish.weights].iterations
        model = Model(
            weights=files[wish.weights],
            noise=wish.noise,
            iterations=None if every else wish.iterations,
            dtype=self.dtype,
            cache=self.cache,
        )
        upscaler = model.upscaler(wish.scale)
        return upscaler, model.software(upscaler)
