"""What may stand in a request body: OpenAI's fields, and the extensions of this server.

Extensions at the top: ``top_k``, ``ignore_eos``, ``stop_token_ids`` and ``return_token_ids`` as in vLLM;
``draft_length``, the number of tokens drafted per round (0: plain decoding). A ``video_url`` part takes ``num_frames``,
``fps``, ``start`` and ``end`` (seconds) beside its ``url``. ``null`` means that a field was left out. Fields that are
not supported may stand there with the value that has no effect; any other value is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flashsd_ray.types import MAX_LOGPROBS, MAX_TEMPERATURE

_Values = Mapping[str, tuple[object, ...]]

_MAX_INT = 2**31 - 1
_MAX_SEED = 2**63 - 1

_WITHOUT_EFFECT: _Values = {
    "frequency_penalty": (0,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "metadata": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "use_beam_search": (False,),
}


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _texts_only(value: Any) -> Any:
    value = _as_list(value)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a text or a list of texts; token ids are not supported")
    return value


class Fields(BaseModel):
    """An object in a request body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    without_effect: ClassVar[_Values] = {}

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            name: value
            for name, value in data.items()
            if value is not None and value not in cls.without_effect.get(name, ())
        }


class TextPart(Fields):
    """Words."""

    type: Literal["text"]
    text: str


class ImageUrl(Fields):
    """Where a picture is; it is always looked at in full, so other details than high are refused."""

    url: str
    detail: Literal["auto", "high"] = "auto"


class ImagePart(Fields):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


class VideoUrl(Fields):
    """Where a video is, and which of its frames are looked at."""

    url: str
    num_frames: int | None = Field(None, ge=1, le=_MAX_INT)
    fps: float | None = Field(None, gt=0)
    start: float | None = Field(None, ge=0)  # seconds from the first frame
    end: float | None = Field(None, gt=0)


class VideoPart(Fields):
    """A video."""

    type: Literal["video_url"]
    video_url: VideoUrl


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(Fields):
    """What one side said; an answer of this server can be sent back as it came."""

    without_effect: ClassVar[_Values] = {"annotations": ([],), "tool_calls": ([],)}

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], BeforeValidator(_as_parts)]


class StreamOptions(Fields):
    """What a stream holds besides the text."""

    without_effect: ClassVar[_Values] = {"continuous_usage_stats": (False,), "include_obfuscation": (False,)}

    include_usage: bool = False


class RequestFields(Fields):
    """What both kinds of request have."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=_MAX_INT)
    temperature: float | None = Field(None, ge=0, le=MAX_TEMPERATURE)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, le=_MAX_INT)  # 0 and -1: every token
    stop: Annotated[list[str], BeforeValidator(_as_list)] = []
    stop_token_ids: list[Annotated[int, Field(ge=0, le=_MAX_INT)]] = []
    ignore_eos: bool = False
    seed: int | None = Field(None, ge=-_MAX_SEED, le=_MAX_SEED)
    n: int = Field(1, ge=1, le=_MAX_INT)
    draft_length: int | None = Field(None, ge=0, le=_MAX_INT)
    return_token_ids: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    # Taken and not used: names that clients give to what they do.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class ChatFields(RequestFields):
    """The body of POST /v1/chat/completions."""

    without_effect: ClassVar[_Values] = {
        **_WITHOUT_EFFECT,
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
        "echo": (False,),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "modalities": (["text"],),
        "parallel_tool_calls": (True, False),
        "reasoning_effort": ("none",),
        "store": (False,),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "verbosity": ("medium",),
    }

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=_MAX_INT)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)


class CompletionFields(RequestFields):
    """The body of POST /v1/completions: texts that the model goes on with, without its chat template."""

    without_effect: ClassVar[_Values] = {**_WITHOUT_EFFECT, "best_of": (1,), "echo": (False,), "suffix": ("",)}

    prompt: Annotated[list[str], BeforeValidator(_texts_only)] = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
