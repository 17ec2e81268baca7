"""What a live session is told and what it says: the messages of ``StreamVideo`` without protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import FlashSDError
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import FinishReason, SamplingParams

if TYPE_CHECKING:
    import numpy as np


class Mode(str, Enum):
    """When a session answers."""

    ON_DEMAND = "on_demand"
    PERIODIC = "periodic"
    CHANGES = "changes"


class CloseReason(str, Enum):
    """Why a session's stream ended."""

    END = "end"
    IDLE = "idle"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """The first message: a new session, or with ``session_id`` one to continue."""

    model: str = ""
    session_id: str = ""
    resume_token: str = ""
    mode: Mode = Mode.ON_DEMAND
    period_s: float = 0.0  # video time; for the modes that caption by themselves
    prompt: str = ""
    sampling: SamplingParams | None = None
    keep_first: int = 0  # 0: the server's choice
    max_frames: int = 0  # the same
    draft_length: int | None = None
    captions_received: int | None = None  # when continuing: later ones come again; None: unfinished ones do


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PushFrame:
    """The next frame; an address is no frame, whoever maps the wire form fetches it or sends ``Unusable``."""

    image: bytes | np.ndarray  # a picture file, or [H, W, 3] uint8
    timestamp_s: float | None = None  # video time, not decreasing; None: sessions.frame_rate counts

    @property
    def num_bytes(self) -> int:
        """What the frame takes as it was sent."""
        return len(self.image) if isinstance(self.image, bytes) else self.image.nbytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PushChunk:
    """The next bytes of the one container file that a stream may carry."""

    data: bytes
    is_last: bool = False
    fps: float = 0.0  # on the first chunk: frames taken per second of video; 0: sessions.frame_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question about the frames sent before it."""

    prompt: str = ""  # empty: the session's
    ask_id: str = ""  # empty: the server makes one
    sampling: SamplingParams | None = None  # None: the session's
    keep_history: bool = False
    is_again: bool = False  # it was asked on a connection that was lost


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPrompt:
    """From here on the session asks this."""

    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """The answer is not wanted any more; naming one that has ended is allowed."""

    ask_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Nothing follows; what is open is still answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A message that could not be mapped from its wire form; it is refused in its turn."""

    error: FlashSDError
    kind: Literal["frame", "other"] = "other"  # a frame counts, although it is refused
    ask_id: str = ""


Input: TypeAlias = Open | PushFrame | PushChunk | Ask | SetPrompt | Cancel | End | Unusable


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The first event: the session, and the limits that hold for it."""

    session_id: str
    resume_token: str
    model: str
    keep_first: int
    max_frames: int  # what the client asked for, the operator allows and the model's context holds
    max_waiting_frames: int
    next_frame: int  # index of the frame that is expected next


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAck:
    """Every frame up to ``frame`` that was not refused is taken over; one event may stand for several frames."""

    frame: int
    frames_held: int
    frames_dropped: int  # by the window policy, since the session was opened
    tokens_cached: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStarted:
    """An answer has its turn; ``start_s`` and ``end_s`` are also the times of a WebVTT cue for it."""

    ask_id: str
    request_id: str
    start_s: float  # video time that the answer looks at
    end_s: float
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDelta:
    """The next piece of an answer."""

    ask_id: str
    chunk: Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFinished:
    """The end of an answer; one that failed ends with ``Refused`` instead."""

    ask_id: str
    text: str
    finish_reason: FinishReason
    stats: SpeculationStats
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    seconds_to_first_text: float = 0.0  # from the question; 0: there was no text
    is_unchanged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One message could not be used; the session goes on."""

    reason: str
    code: str  # name of the gRPC status that a unary call would have had
    ask_id: str = ""
    frame: int | None = None  # None: it was no frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The last event."""

    reason: CloseReason
    frames_seen: int
    answers: int


Output: TypeAlias = Opened | FrameAck | AnswerStarted | AnswerDelta | AnswerFinished | Refused | Closed
