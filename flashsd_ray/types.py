"""The values that travel between the stages of the pipeline.

Shape letters, the same everywhere: ``B`` rows in a batch, ``T`` positions, ``K`` draft length, ``S`` proposal
support, ``V`` vocabulary, ``N`` visual tokens, ``C`` latents, ``F`` frames, ``D`` target width, ``E`` drafter width,
``M`` tapped layers, ``H``/``Hkv``/``Dh`` heads.

Position rule: with *n* committed tokens (prompt and emitted) the last one is the **anchor** and the target's cache
holds positions ``0 .. n-2``. A draft block has ``start == n``; verifying it forwards ``[anchor, d1 .. dK]``. If *a*
drafts stand, ``a + 1`` tokens are committed and the cache holds ``n + a`` positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from blake3 import blake3

from flashsd_ray.errors import InvalidRequestError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MAX_TEMPERATURE = 100.0
MAX_LOGPROBS = 20
DIGEST_BYTES = 16


class FinishReason(str, Enum):
    """Why a request ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one request turns the target's logits into tokens; temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 0  # 0: every token
    top_p: float = 1.0
    max_new_tokens: int = 128
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()  # besides the model's own end-of-sequence tokens
    ignore_eos: bool = False
    logprobs: int | None = None  # alternatives reported beside each emitted token's log-probability; None: no report

    def __post_init__(self) -> None:
        """Raises InvalidRequestError when a parameter lies outside its range."""
        if not 0.0 <= self.temperature <= MAX_TEMPERATURE:
            raise InvalidRequestError(f"temperature must be in 0..{MAX_TEMPERATURE:g}, got {self.temperature}")
        if self.top_k < 0:
            raise InvalidRequestError(f"top_k must be 0 (off) or positive, got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidRequestError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_new_tokens < 1:
            raise InvalidRequestError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise InvalidRequestError(f"logprobs must be in 0..{MAX_LOGPROBS}, got {self.logprobs}")
        if any(not text for text in self.stop):
            raise InvalidRequestError("a stop string must not be empty")

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualInput:
    """One image, or the sampled frames of one video, in memory."""

    kind: Literal["image", "video"]
    frames: np.ndarray  # [F, H, W, 3] uint8; F == 1 for an image
    timestamps_s: np.ndarray  # [F] float64, seconds from the start of the source
    source: str = ""  # what to call it in messages
    duration_s: float = 0.0  # of the whole source; 0 for an image

    def __post_init__(self) -> None:
        """Raises InvalidRequestError when the frames are not [F, H, W, 3] uint8 with one timestamp each."""
        shape = self.frames.shape
        if len(shape) != 4 or shape[3] != 3 or 0 in shape or str(self.frames.dtype) != "uint8":
            raise InvalidRequestError(
                f"frames must be [F, H, W, 3] uint8 and not empty, got {shape} {self.frames.dtype}"
            )
        if len(self.timestamps_s) != shape[0]:
            raise InvalidRequestError(f"{shape[0]} frames need as many timestamps, got {len(self.timestamps_s)}")
        if self.kind == "image" and shape[0] != 1:
            raise InvalidRequestError(f"an image has one frame, got {shape[0]}")

    @cached_property
    def digest(self) -> str:
        """Hash of the pixels, their shape and their times: equal content, equal digest."""
        content = blake3(f"{self.kind}{self.frames.shape}".encode())
        content.update(_pixels(self.frames))
        content.update(self.timestamps_s.astype("float64").tobytes())
        return str(content.hexdigest(DIGEST_BYTES))

    @cached_property
    def first_frame_digest(self) -> str:
        """Hash of the pixels of the first frame: the same however long a live video has become."""
        return str(blake3(_pixels(self.frames[0])).hexdigest(DIGEST_BYTES))


def _pixels(frames: np.ndarray) -> memoryview:
    """The bytes as they lie there; a second of video is a megabyte, and hashing a copy of it costs more than the hash."""
    return frames.reshape(-1).data


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """What one side of a conversation said: texts and pictures in their order."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | VisualInput, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conversation:
    """Everything that the model is told before it answers."""

    turns: tuple[Turn, ...]
    uses_template: bool = True  # False: the parts are joined as they are, without the model's chat template

    @property
    def visuals(self) -> tuple[VisualInput, ...]:
        """The pictures of all turns, in order."""
        return tuple(part for turn in self.turns for part in turn.parts if isinstance(part, VisualInput))

    @classmethod
    def of(cls, prompt: str, visuals: Sequence[VisualInput] = ()) -> Conversation:
        """One question about some pictures."""
        return cls(turns=(Turn(role="user", parts=(*visuals, prompt)),))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaptionRequest:
    """What a caller asks: a prompt about some images and videos, or a whole conversation."""

    request_id: str
    prompt: str = ""
    visuals: tuple[VisualInput, ...] = ()
    turns: tuple[Turn, ...] = ()  # takes the place of prompt and visuals
    uses_template: bool = True
    sampling: SamplingParams = field(default_factory=SamplingParams)
    draft_length: int | None = None  # None: the engine decides each round
    timeout_s: float | None = None  # counted from where the request is handed over; None: as long as it takes
    trace: str = ""  # the span that it belongs to, as a W3C traceparent; empty: it is not traced

    def __post_init__(self) -> None:
        """Raises InvalidRequestError when both a prompt and a conversation are given, or a time limit that is past."""
        if self.turns and (self.prompt or self.visuals):
            raise InvalidRequestError("a request has either turns, or a prompt with visuals")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise InvalidRequestError(f"timeout_s must be positive, got {self.timeout_s}")

    @property
    def conversation(self) -> Conversation:
        """What the model is told, however the caller put it."""
        if self.turns:
            return Conversation(turns=self.turns, uses_template=self.uses_template)
        return replace(Conversation.of(self.prompt, self.visuals), uses_template=self.uses_template)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualSegment:
    """A run of consecutive prompt positions that hold visual tokens of one image or frame group."""

    start: int
    num_tokens: int
    digest: str  # of the content behind it

    @property
    def stop(self) -> int:
        """First position after the segment."""
        return self.start + self.num_tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VisualTokens:
    """What the vision tower and the projector make of a picture: the same for the same content, whoever asks."""

    features: Tensor  # [N, D]
    deepstack: tuple[Tensor, ...] = ()  # each [N, D], from inner layers of the tower
    grid: tuple[int, ...] = ()  # patches in time, height and width; empty where the family has no use for them

    def __len__(self) -> int:
        return len(self.features)

    @property
    def num_bytes(self) -> int:
        """Memory that the tensors take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.features, *self.deepstack))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedPrompt:
    """A prompt as the target's language model takes it: visual features stand where their placeholders stood."""

    token_ids: tuple[int, ...]  # length n
    embeddings: Tensor  # [n, D], projected visual features at the rows of the segments
    positions: Tensor  # [A, n] int64, rotary position of each row on each of A axes (1, or 3 for M-RoPE)
    segments: tuple[VisualSegment, ...] = ()
    deepstack: tuple[Tensor, ...] = ()  # each [N, D], added at the visual rows after the first layers

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def next_position(self) -> int:
        """Rotary position of the first generated token on every axis."""
        return int(self.positions.max()) + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """The sparse distributions that sampled drafts were drawn from; each row sums to one."""

    support_ids: Tensor  # [K, S] int64
    support_probs: Tensor  # [K, S] float64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DraftBlock:
    """Tokens that a drafter proposes to stand at positions ``start .. start + K - 1``."""

    request_id: str
    round: int
    start: int  # number of committed tokens
    token_ids: tuple[int, ...] = ()  # length K; empty: plain decoding, and prefill in round 0
    proposal: Proposal | None = None  # None: the drafts are a deterministic function of the context
    confidence: tuple[float, ...] | None = None  # length K, predicted probability that each draft stands


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """How probable the target found a token, before temperature, top-k and top-p."""

    token_id: int
    logprob: float  # natural logarithm
    top: tuple[TokenLogprob, ...] = ()  # the most probable tokens, best first
    text: str = ""  # of the token alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """An order to cache the committed positions of a request below ``stop`` (one chunk of its prefill)."""

    request_id: str
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """What the target made of a draft block: the tokens that are committed now."""

    request_id: str
    round: int
    start: int  # of the block
    num_accepted: int  # a, of the block's drafts
    token_ids: tuple[int, ...]  # a accepted, then one recovered or bonus token
    taps: Tensor | None = None  # [rows, E], rows that entered the cache with this verdict; None: nobody asked for them
    logprobs: tuple[TokenLogprob, ...] = ()  # of token_ids, where the request asked for them

    @property
    def next_start(self) -> int:
        """Number of committed tokens after this verdict."""
        return self.start + len(self.token_ids)
