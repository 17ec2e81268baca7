from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_CANCELLED: FinishReason

class CaptionRequest(_message.Message):
    __slots__ = ("model", "turns", "sampling", "draft_length")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    DRAFT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    model: str
    turns: _containers.RepeatedCompositeFieldContainer[Turn]
    sampling: Sampling
    draft_length: int
    def __init__(self, model: _Optional[str] = ..., turns: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., draft_length: _Optional[int] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("role", "parts")
    class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ROLE_UNSPECIFIED: _ClassVar[Turn.Role]
        ROLE_USER: _ClassVar[Turn.Role]
        ROLE_ASSISTANT: _ClassVar[Turn.Role]
        ROLE_SYSTEM: _ClassVar[Turn.Role]
    ROLE_UNSPECIFIED: Turn.Role
    ROLE_USER: Turn.Role
    ROLE_ASSISTANT: Turn.Role
    ROLE_SYSTEM: Turn.Role
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    role: Turn.Role
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    def __init__(self, role: _Optional[_Union[Turn.Role, str]] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("text", "image", "video")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    text: str
    image: Image
    video: Video
    def __init__(self, text: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., video: _Optional[_Union[Video, _Mapping]] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("encoded", "raw", "url")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    raw: RawFrame
    url: str
    def __init__(self, encoded: _Optional[bytes] = ..., raw: _Optional[_Union[RawFrame, _Mapping]] = ..., url: _Optional[str] = ...) -> None: ...

class RawFrame(_message.Message):
    __slots__ = ("width", "height", "rgb")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RGB_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    rgb: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., rgb: _Optional[bytes] = ...) -> None: ...

class Video(_message.Message):
    __slots__ = ("encoded", "url", "frames", "num_frames", "fps", "start_s", "end_s")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    url: str
    frames: FrameList
    num_frames: int
    fps: float
    start_s: float
    end_s: float
    def __init__(self, encoded: _Optional[bytes] = ..., url: _Optional[str] = ..., frames: _Optional[_Union[FrameList, _Mapping]] = ..., num_frames: _Optional[int] = ..., fps: _Optional[float] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ...) -> None: ...

class FrameList(_message.Message):
    __slots__ = ("frames", "timestamps_s")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_S_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[Image]
    timestamps_s: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, frames: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., timestamps_s: _Optional[_Iterable[float]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "max_new_tokens", "seed", "stop", "ignore_eos", "logprobs")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    ignore_eos: bool
    logprobs: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., ignore_eos: _Optional[bool] = ..., logprobs: _Optional[int] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("num_prompt_tokens", "num_cached_tokens", "num_new_tokens", "rounds", "tau", "num_draft_tokens", "num_accepted_tokens", "accepted_per_position", "seconds")
    class SecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NUM_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    TAU_FIELD_NUMBER: _ClassVar[int]
    NUM_DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_PER_POSITION_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    num_prompt_tokens: int
    num_cached_tokens: int
    num_new_tokens: int
    rounds: int
    tau: float
    num_draft_tokens: int
    num_accepted_tokens: int
    accepted_per_position: _containers.RepeatedScalarFieldContainer[int]
    seconds: _containers.ScalarMap[str, float]
    def __init__(self, num_prompt_tokens: _Optional[int] = ..., num_cached_tokens: _Optional[int] = ..., num_new_tokens: _Optional[int] = ..., rounds: _Optional[int] = ..., tau: _Optional[float] = ..., num_draft_tokens: _Optional[int] = ..., num_accepted_tokens: _Optional[int] = ..., accepted_per_position: _Optional[_Iterable[int]] = ..., seconds: _Optional[_Mapping[str, float]] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token_id", "text", "logprob", "top")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    text: str
    logprob: float
    top: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, token_id: _Optional[int] = ..., text: _Optional[str] = ..., logprob: _Optional[float] = ..., top: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class CaptionResponse(_message.Message):
    __slots__ = ("request_id", "text", "token_ids", "finish_reason", "statistics", "logprobs")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    finish_reason: FinishReason
    statistics: Statistics
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, request_id: _Optional[str] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class CaptionEvent(_message.Message):
    __slots__ = ("started", "delta", "finished")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    started: Started
    delta: Delta
    finished: Finished
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("request_id", "model")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("text", "token_ids", "num_accepted", "logprobs")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    NUM_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    num_accepted: int
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., num_accepted: _Optional[int] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("finish_reason", "statistics")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    statistics: Statistics
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ...) -> None: ...

class StreamVideoRequest(_message.Message):
    __slots__ = ("open", "frame", "chunk", "ask", "set_prompt", "end", "cancel")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    SET_PROMPT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    open: Open
    frame: Frame
    chunk: VideoChunk
    ask: Ask
    set_prompt: SetPrompt
    end: End
    cancel: Cancel
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., chunk: _Optional[_Union[VideoChunk, _Mapping]] = ..., ask: _Optional[_Union[Ask, _Mapping]] = ..., set_prompt: _Optional[_Union[SetPrompt, _Mapping]] = ..., end: _Optional[_Union[End, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("model", "session_id", "resume_token", "mode", "period_s", "prompt", "sampling", "keep_first", "max_frames", "draft_length", "captions_received")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[Open.Mode]
        MODE_ON_DEMAND: _ClassVar[Open.Mode]
        MODE_PERIODIC: _ClassVar[Open.Mode]
        MODE_CHANGES: _ClassVar[Open.Mode]
    MODE_UNSPECIFIED: Open.Mode
    MODE_ON_DEMAND: Open.Mode
    MODE_PERIODIC: Open.Mode
    MODE_CHANGES: Open.Mode
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIRST_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAMES_FIELD_NUMBER: _ClassVar[int]
    DRAFT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CAPTIONS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    model: str
    session_id: str
    resume_token: str
    mode: Open.Mode
    period_s: float
    prompt: str
    sampling: Sampling
    keep_first: int
    max_frames: int
    draft_length: int
    captions_received: int
    def __init__(self, model: _Optional[str] = ..., session_id: _Optional[str] = ..., resume_token: _Optional[str] = ..., mode: _Optional[_Union[Open.Mode, str]] = ..., period_s: _Optional[float] = ..., prompt: _Optional[str] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., keep_first: _Optional[int] = ..., max_frames: _Optional[int] = ..., draft_length: _Optional[int] = ..., captions_received: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("image", "timestamp_s")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    image: Image
    timestamp_s: float
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., timestamp_s: _Optional[float] = ...) -> None: ...

class VideoChunk(_message.Message):
    __slots__ = ("data", "is_last", "fps")
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    is_last: bool
    fps: float
    def __init__(self, data: _Optional[bytes] = ..., is_last: _Optional[bool] = ..., fps: _Optional[float] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("prompt", "ask_id", "sampling", "keep_history", "is_again")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    KEEP_HISTORY_FIELD_NUMBER: _ClassVar[int]
    IS_AGAIN_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    ask_id: str
    sampling: Sampling
    keep_history: bool
    is_again: bool
    def __init__(self, prompt: _Optional[str] = ..., ask_id: _Optional[str] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., keep_history: _Optional[bool] = ..., is_again: _Optional[bool] = ...) -> None: ...

class SetPrompt(_message.Message):
    __slots__ = ("prompt",)
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    def __init__(self, prompt: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("ask_id",)
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    ask_id: str
    def __init__(self, ask_id: _Optional[str] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StreamVideoEvent(_message.Message):
    __slots__ = ("opened", "frame_ack", "answer_started", "answer_delta", "answer_finished", "refused", "closed")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    FRAME_ACK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_STARTED_FIELD_NUMBER: _ClassVar[int]
    ANSWER_DELTA_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FINISHED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    frame_ack: FrameAck
    answer_started: AnswerStarted
    answer_delta: AnswerDelta
    answer_finished: AnswerFinished
    refused: Refused
    closed: Closed
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., frame_ack: _Optional[_Union[FrameAck, _Mapping]] = ..., answer_started: _Optional[_Union[AnswerStarted, _Mapping]] = ..., answer_delta: _Optional[_Union[AnswerDelta, _Mapping]] = ..., answer_finished: _Optional[_Union[AnswerFinished, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session_id", "resume_token", "model", "keep_first", "max_frames", "max_waiting_frames", "next_frame")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIRST_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_WAITING_FRAMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    resume_token: str
    model: str
    keep_first: int
    max_frames: int
    max_waiting_frames: int
    next_frame: int
    def __init__(self, session_id: _Optional[str] = ..., resume_token: _Optional[str] = ..., model: _Optional[str] = ..., keep_first: _Optional[int] = ..., max_frames: _Optional[int] = ..., max_waiting_frames: _Optional[int] = ..., next_frame: _Optional[int] = ...) -> None: ...

class FrameAck(_message.Message):
    __slots__ = ("frame", "frames_held", "frames_dropped", "tokens_cached")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    FRAMES_HELD_FIELD_NUMBER: _ClassVar[int]
    FRAMES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_CACHED_FIELD_NUMBER: _ClassVar[int]
    frame: int
    frames_held: int
    frames_dropped: int
    tokens_cached: int
    def __init__(self, frame: _Optional[int] = ..., frames_held: _Optional[int] = ..., frames_dropped: _Optional[int] = ..., tokens_cached: _Optional[int] = ...) -> None: ...

class AnswerStarted(_message.Message):
    __slots__ = ("ask_id", "request_id", "start_s", "end_s", "num_frames")
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    END_S_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    ask_id: str
    request_id: str
    start_s: float
    end_s: float
    num_frames: int
    def __init__(self, ask_id: _Optional[str] = ..., request_id: _Optional[str] = ..., start_s: _Optional[float] = ..., end_s: _Optional[float] = ..., num_frames: _Optional[int] = ...) -> None: ...

class AnswerDelta(_message.Message):
    __slots__ = ("ask_id", "delta")
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    ask_id: str
    delta: Delta
    def __init__(self, ask_id: _Optional[str] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ...) -> None: ...

class AnswerFinished(_message.Message):
    __slots__ = ("ask_id", "text", "finish_reason", "statistics", "seconds_to_first_text", "is_unchanged")
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_TO_FIRST_TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    ask_id: str
    text: str
    finish_reason: FinishReason
    statistics: Statistics
    seconds_to_first_text: float
    is_unchanged: bool
    def __init__(self, ask_id: _Optional[str] = ..., text: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., seconds_to_first_text: _Optional[float] = ..., is_unchanged: _Optional[bool] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason", "code", "ask_id", "frame")
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    reason: str
    code: str
    ask_id: str
    frame: int
    def __init__(self, reason: _Optional[str] = ..., code: _Optional[str] = ..., ask_id: _Optional[str] = ..., frame: _Optional[int] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("reason", "frames_seen", "answers")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Closed.Reason]
        REASON_END: _ClassVar[Closed.Reason]
        REASON_IDLE: _ClassVar[Closed.Reason]
        REASON_DRAINING: _ClassVar[Closed.Reason]
    REASON_UNSPECIFIED: Closed.Reason
    REASON_END: Closed.Reason
    REASON_IDLE: Closed.Reason
    REASON_DRAINING: Closed.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    FRAMES_SEEN_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    reason: Closed.Reason
    frames_seen: int
    answers: int
    def __init__(self, reason: _Optional[_Union[Closed.Reason, str]] = ..., frames_seen: _Optional[int] = ..., answers: _Optional[int] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "family", "context_length", "max_new_tokens", "fingerprint", "drafter", "compressor", "dtype", "max_message_bytes", "max_session_frames")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DRAFTER_FIELD_NUMBER: _ClassVar[int]
    COMPRESSOR_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSION_FRAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    family: str
    context_length: int
    max_new_tokens: int
    fingerprint: str
    drafter: str
    compressor: str
    dtype: str
    max_message_bytes: int
    max_session_frames: int
    def __init__(self, name: _Optional[str] = ..., family: _Optional[str] = ..., context_length: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., fingerprint: _Optional[str] = ..., drafter: _Optional[str] = ..., compressor: _Optional[str] = ..., dtype: _Optional[str] = ..., max_message_bytes: _Optional[int] = ..., max_session_frames: _Optional[int] = ...) -> None: ...
