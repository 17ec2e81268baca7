"""An engine in this process: no Ray, no server; what the command line uses and what distributed runs are held against."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from flashsd_ray.config import Config
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.engine.lane import Lane
from flashsd_ray.models.drafters import TargetView, load_drafter, resolve
from flashsd_ray.models.drafters.free import FreeDrafter
from flashsd_ray.models.drafters.neural import NeuralDrafter
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.loading import load_configured
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.models.taps import Taps
from flashsd_ray.models.target import LocalTarget
from flashsd_ray.models.visual_cache import MemoryVisualCache, VisualCache
from flashsd_ray.speculation.interfaces import Drafter
from flashsd_ray.types import CaptionRequest


class Engine:
    """A target, its drafter and the lane that drives them."""

    def __init__(
        self,
        target: PretrainedTarget,
        drafter: Drafter,
        config: Config,
        *,
        drafter_name: str = "",
        compressor_name: str = "",
        visual_cache: VisualCache | None = None,  # None: one of our own, in memory
    ) -> None:
        self.target = target
        self.config = config
        self.drafter_name = drafter_name or config.speculation.drafter
        self.drafter = drafter
        self._arrived: dict[str, deque[Chunk]] = {}
        self.verifier = LocalTarget(
            target.decoder,
            cache_rows=config.scheduling.cache_rows,
            context_length=target.context_length,
            taps=taps_of(drafter),
            rule=config.speculation.acceptance,
            share_prefixes=config.scheduling.share_prefixes,
        )
        network = getattr(drafter, "network", None)
        # What compresses the visual tokens for the drafter; ``none`` when it sees none.
        self.compressor_name = compressor_name or ("none" if network is None else str(network.config.compressor.name))
        most_rows = config.scheduling.max_running * (drafter.max_draft_length + 1)
        target.decoder.prepare(most_rows)
        if network is not None:
            network.prepare(most_rows)
        cache = MemoryVisualCache(config.stores.latent_bytes) if visual_cache is None else visual_cache
        self.encoder = LocalEncoder(target, cache, config.encoding)
        self.lane = Lane(
            self.encoder,
            self.verifier,
            drafter,
            config,
            eos_token_ids=target.eos_token_ids,
            detokenize=target.detokenize,
            # Together they read the weights once, which on a CPU saves next to nothing.
            prompts_apart=target.decoder.device.type == "cpu",
        )

    @classmethod
    def local(cls, config: Config | None = None, *, visual_cache: VisualCache | None = None) -> Engine:
        """The target and the drafter that the config names are loaded.

        Effects:
            Sets the number of CPU threads that torch uses in this process.

        Raises:
            CheckpointError: one of them is missing, damaged, unsupported or made for another target.
            ConfigError: a name is unknown.
        """
        config = config or Config()
        return cls.around(load_configured(config.model), config, visual_cache=visual_cache)

    @classmethod
    def around(cls, target: PretrainedTarget, config: Config, *, visual_cache: VisualCache | None = None) -> Engine:
        """The same for a target that is loaded already.

        Raises:
            CheckpointError: the drafter is missing, damaged or made for another target.
            ConfigError: a name is unknown.
        """
        view, limits = view_of(target), config.scheduling
        name = resolve(config.speculation.drafter, view)
        drafter = drafter_of(config, view, cache_rows=limits.cache_rows, max_running=limits.max_running)
        return cls(target, drafter, config, drafter_name=name, visual_cache=visual_cache)

    @property
    def dtype(self) -> str:
        """Of the weights, as torch names it."""
        return str(self.target.decoder.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        """Where the weights are."""
        return str(self.target.decoder.device)

    def stream(self, request: CaptionRequest) -> Iterator[Chunk]:
        """The answer's chunks as they are committed; leaving the loop early cancels the request.

        Raises:
            OverloadedError: too many requests are waiting.
            InvalidRequestError: a limit of the configuration is exceeded.
        """
        arrived = self._submit(request)
        try:
            while True:
                if not arrived:
                    self._advance()
                    continue
                chunk = arrived.popleft()
                yield chunk
                if chunk.finish_reason is not None:
                    return
        finally:
            self._forget(request.request_id)

    def caption(self, request: CaptionRequest) -> Caption:
        """The whole answer.

        Raises:
            FlashSDError: the request could not be answered.
        """
        return joined(list(self.stream(request)))

    def caption_many(self, requests: Iterable[CaptionRequest]) -> Iterator[Caption]:
        """All answers, decoded together, in the order in which they end; requests are taken as places come free.

        Raises:
            FlashSDError: a request could not be answered; the others are cancelled.
        """
        remaining = iter(requests)
        chunks: dict[str, deque[Chunk]] = {}
        try:
            while True:
                while self.lane.num_waiting < max(1, self.config.scheduling.max_running - self.lane.num_running):
                    request = next(remaining, None)
                    if request is None:
                        break
                    chunks[request.request_id] = self._submit(request)
                if not chunks:
                    return
                self._advance()
                for request_id in [key for key, arrived in chunks.items() if arrived and arrived[-1].finish_reason]:
                    ended = list(chunks.pop(request_id))
                    self._forget(request_id)
                    yield joined(ended)
        finally:
            for request_id in chunks:
                self._forget(request_id)

    def _submit(self, request: CaptionRequest) -> deque[Chunk]:
        self.lane.submit(request)
        arrived: deque[Chunk] = deque()
        self._arrived[request.request_id] = arrived
        return arrived

    def _advance(self) -> None:
        """One round was run; its chunks wait for whoever reads them, so that several readers can take turns."""
        for chunk in self.lane.step():
            self._arrived[chunk.request_id].append(chunk)

    def _forget(self, request_id: str) -> None:
        self.lane.cancel(request_id)
        self._arrived.pop(request_id, None)


def view_of(target: PretrainedTarget) -> TargetView:
    """The parts of a target that its drafter shares."""
    decoder = target.decoder
    return TargetView(
        hidden_size=decoder.hidden_size,
        num_layers=decoder.num_layers,
        vocab_size=decoder.vocab_size,
        embedding=decoder.embedding,
        lm_head=decoder.lm_head,
        head=decoder.logits,
        rope_theta=target.rope_theta,
        rms_norm_eps=decoder.norm_eps,
        fingerprint=target.fingerprint,
    )


def drafter_of(config: Config, view: TargetView, *, cache_rows: int, max_running: int) -> NeuralDrafter | FreeDrafter:
    """The drafter that the config names, beside this target.

    Raises:
        CheckpointError: the drafter is missing, damaged or made for another target.
        ConfigError: a name is unknown.
    """
    chosen = config.speculation
    return load_drafter(
        chosen.drafter,
        view,
        compressor=chosen.compressor,
        rule=chosen.acceptance,
        cache_rows=cache_rows,
        max_running=max_running,
    )


def taps_of(drafter: Drafter) -> Taps | None:
    """What the drafter wants of the target's hidden states; None when it wants nothing."""
    return Taps(drafter.tap_layers, drafter.tap_width, drafter.fuse) if drafter.tap_layers else None
