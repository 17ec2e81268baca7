"""From the fields of a request to what the service is asked."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flashsd_ray.actors.service import ModelCard
from flashsd_ray.config import Config, ServingConfig
from flashsd_ray.serving.http.errors import FieldError
from flashsd_ray.serving.http.fields import ChatFields, CompletionFields, Message, RequestFields, TextPart
from flashsd_ray.serving.http.visuals import VisualReader
from flashsd_ray.types import CaptionRequest, Conversation, SamplingParams, Turn, VisualInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Some conversations, each to be answered ``num_choices`` times."""

    conversations: tuple[Conversation, ...]
    sampling: SamplingParams
    num_choices: int
    draft_length: int | None
    streams: bool
    streams_usage: bool
    returns_token_ids: bool

    def requests(
        self,
        request_id: str,  # as the client knows it
        timeout_s: float,
        trace: str,  # W3C traceparent; empty: none
    ) -> list[CaptionRequest]:
        """One request for each answer, the answers to one conversation side by side; answer i has the seed plus i."""
        return [
            CaptionRequest(
                request_id=f"{request_id}-{secrets.token_hex(16)}",  # which nobody can guess
                turns=conversation.turns,
                uses_template=conversation.uses_template,
                sampling=replace(self.sampling, seed=self.sampling.seed + index),
                draft_length=self.draft_length,
                timeout_s=timeout_s,
                trace=trace,
            )
            for conversation in self.conversations
            for index in range(self.num_choices)
        ]


async def asked_of_chat(fields: ChatFields, config: Config, card: ModelCard, visuals: VisualReader) -> Asked:
    """What a chat request asks.

    Raises:
        FieldError: a limit is exceeded, or two fields contradict each other.
        PartError: a picture cannot be had.
    """
    if fields.top_logprobs is not None and not fields.logprobs:
        raise FieldError("top_logprobs needs logprobs", param="top_logprobs")
    if fields.max_tokens and fields.max_completion_tokens not in (None, fields.max_tokens):
        raise FieldError("max_tokens and max_completion_tokens differ", param="max_completion_tokens")
    sampling = _sampling(
        fields,
        fields.max_completion_tokens or fields.max_tokens,
        (fields.top_logprobs or 0) if fields.logprobs else None,
        config.serving,
        card,
    )
    parts = [part for message in fields.messages for part in message.content]
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    _check_text([*texts, *fields.stop], "messages", config.serving)
    if len(parts) - len(texts) > config.media.max_inputs:
        problem = f"{len(parts) - len(texts)} pictures, media.max_inputs allows {config.media.max_inputs}"
        raise FieldError(problem, param="messages")
    _check_choices(fields.n, 1, config.serving)
    turns = [await _turn(message, f"messages[{index}]", visuals) for index, message in enumerate(fields.messages)]
    return _asked([Conversation(turns=tuple(turns))], fields, sampling)


async def asked_of_completion(
    fields: CompletionFields, config: Config, card: ModelCard, visuals: VisualReader
) -> Asked:
    """What a completion request asks; raises FieldError when a limit is exceeded."""
    sampling = _sampling(fields, fields.max_tokens, fields.logprobs, config.serving, card)
    _check_text([*fields.prompt, *fields.stop], "prompt", config.serving)
    _check_choices(fields.n, len(fields.prompt), config.serving)
    conversations = [replace(Conversation.of(prompt), uses_template=False) for prompt in fields.prompt]
    return _asked(conversations, fields, sampling)


def _asked(conversations: Sequence[Conversation], fields: RequestFields, sampling: SamplingParams) -> Asked:
    if fields.stream_options is not None and not fields.stream:
        raise FieldError("stream_options needs stream", param="stream_options")
    return Asked(
        conversations=tuple(conversations),
        sampling=sampling,
        num_choices=fields.n,
        draft_length=fields.draft_length,
        streams=fields.stream,
        streams_usage=fields.stream_options is not None and fields.stream_options.include_usage,
        returns_token_ids=fields.return_token_ids,
    )


async def _turn(message: Message, path: str, visuals: VisualReader) -> Turn:
    parts: list[str | VisualInput] = []
    for index, part in enumerate(message.content):
        if isinstance(part, TextPart):
            parts.append(part.text)
        else:
            source = part.image_url if part.type == "image_url" else part.video_url
            parts.append(await visuals.read(source, f"{path}.content[{index}]"))
    return Turn(role="system" if message.role == "developer" else message.role, parts=tuple(parts))


def _sampling(
    fields: RequestFields, max_tokens: int | None, logprobs: int | None, config: ServingConfig, card: ModelCard
) -> SamplingParams:
    limit = card.max_new_tokens
    if max_tokens is not None and max_tokens > limit:
        raise FieldError(f"max_tokens is {max_tokens}, scheduling.max_new_tokens allows {limit}", param="max_tokens")
    for name, stops in (("stop", fields.stop), ("stop_token_ids", fields.stop_token_ids)):
        if len(stops) > config.max_stop_strings:
            problem = f"{name} has {len(stops)} entries, serving.max_stop_strings allows {config.max_stop_strings}"
            raise FieldError(problem, param=name)
    return SamplingParams(
        temperature=config.default_temperature if fields.temperature is None else fields.temperature,
        top_k=max(fields.top_k, 0),
        top_p=fields.top_p,
        max_new_tokens=max_tokens or min(config.default_max_new_tokens, limit),
        seed=secrets.randbits(32) if fields.seed is None else fields.seed,
        stop=tuple(fields.stop),
        stop_token_ids=tuple(fields.stop_token_ids),
        ignore_eos=fields.ignore_eos,
        logprobs=logprobs,
    )


def _check_text(texts: Sequence[str], param: str, config: ServingConfig) -> None:
    size = sum(map(len, texts))
    if size > config.max_prompt_characters:
        problem = f"the texts have {size} characters, serving.max_prompt_characters allows"
        raise FieldError(f"{problem} {config.max_prompt_characters}", param=param, status=413)


def _check_choices(num_choices: int, num_prompts: int, config: ServingConfig) -> None:
    if num_choices * num_prompts > config.max_choices:
        problem = f"n asks for {num_choices * num_prompts} answers, serving.max_choices allows {config.max_choices}"
        raise FieldError(problem, param="n")
