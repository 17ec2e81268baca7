"""What the load generator sends, and what it saw: plain values, so that it needs no model and no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeAlias

from flashsd_ray.types import SamplingParams

Edge: TypeAlias = Literal["http", "grpc"]
Now: TypeAlias = Callable[[], float]  # seconds since the load began

EDGES: tuple[Edge, ...] = ("http", "grpc")
ANSWERED = "OK"  # every other code says why there is no answer
BROKEN = "BROKEN"  # an answer that began and did not end, or one that makes no sense


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request as a client has it: a file, a question, and how to answer."""

    name: str
    prompt: str
    picture: bytes = field(repr=False)  # a video file or, with kind "image", a picture file
    kind: Literal["image", "video"] = "video"
    sampling: SamplingParams = field(default_factory=SamplingParams)
    draft_length: int | None = None  # None: the server decides
    timeout_s: float | None = None  # None: the server's

    def as_dict(self) -> dict[str, object]:
        """For reports: everything but the file itself."""
        sampling = self.sampling
        return {
            "name": self.name,
            "prompt": self.prompt,
            "kind": self.kind,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "max_new_tokens": sampling.max_new_tokens,
            "logprobs": sampling.logprobs,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one request; times are seconds since the load began."""

    name: str  # of the ask
    start_s: float
    end_s: float
    code: str = ANSWERED  # or an HTTP status, the name of a gRPC status, BROKEN
    detail: str = ""  # the server's words, where there is no answer
    pieces_s: tuple[float, ...] = ()  # when each piece of text arrived
    text: str = ""
    token_ids: tuple[int, ...] = ()
    token_texts: tuple[str, ...] = ()  # where log-probabilities were asked for
    num_tokens: int = 0
    finish_reason: str = ""

    @property
    def is_answered(self) -> bool:
        """Whether the answer came to its end."""
        return self.code == ANSWERED

    @property
    def whole_s(self) -> float:
        """From sending the request to the end of the answer."""
        return self.end_s - self.start_s

    @property
    def first_s(self) -> float | None:
        """From sending the request to the first piece of text; None when there was none."""
        return self.pieces_s[0] - self.start_s if self.pieces_s else None

    @property
    def per_token_s(self) -> float | None:
        """Seconds per token after the first; None for answers of one token."""
        return (self.pieces_s[-1] - self.pieces_s[0]) / (self.num_tokens - 1) if self._has_several else None

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Between one piece of text and the next; a piece holds as many tokens as a round committed."""
        return tuple(later - earlier for earlier, later in pairwise(self.pieces_s))

    @property
    def _has_several(self) -> bool:
        return len(self.pieces_s) > 1 and self.num_tokens > 1
