"""A conversation as the words that a model reads: its own chat template, with a placeholder where each picture goes.

Nothing that a caller writes can pass for something that only the template may write: the words that a tokenizer
reserves for itself are refused by name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jinja2 import TemplateError

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.pretrained import Family, PretrainedTarget
from flashsd_ray.types import Conversation, Turn, VisualInput


class ChatFormat:
    """Writes conversations the way one target was trained to read them."""

    def __init__(self, target: PretrainedTarget) -> None:
        self._target = target
        processor = target.processor
        names = (getattr(processor, name, None) for name in ("image_token", "video_token"))
        placeholders = {str(name) for name in names if name} | {
            str(target.tokenizer.convert_ids_to_tokens(token_id)) for token_id in target.placeholder_ids
        }
        special = {token.content for token in target.tokenizer.added_tokens_decoder.values() if token.special}
        self._placeholders = tuple(sorted(placeholders))
        self._reserved = tuple(sorted(placeholders | special))

    def write(self, conversation: Conversation) -> str:
        """The prompt's text: one placeholder for each picture, in the order of the pictures of its kind.

        Raises:
            InvalidRequestError: a text holds a reserved word, or the model's template has no place for a turn.
        """
        if not conversation.turns:
            raise InvalidRequestError("a conversation needs at least one turn")
        if not conversation.uses_template:
            return self._joined(conversation)
        for turn in conversation.turns:
            self._check(_words(turn), self._reserved)
        try:
            text = self._target.processor.apply_chat_template(
                [_message(turn) for turn in conversation.turns], add_generation_prompt=True, tokenize=False
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise refusal(error) from error
        return str(text)

    def _joined(self, conversation: Conversation) -> str:
        if conversation.visuals:
            raise InvalidRequestError(
                "pictures need the model's chat template: without it nothing says where they stand"
            )
        text = "".join(_words(turn) for turn in conversation.turns)
        self._check(text, self._placeholders)
        return text

    def _check(self, text: str, reserved: tuple[str, ...]) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRequestError(
                "the text holds half of a surrogate pair, which stands for no character"
            ) from None
        for word in reserved:
            if word in text:
                raise InvalidRequestError(f"the text holds {word!r}, which this model reserves for its chat template")


def refusal(error: Exception) -> InvalidRequestError:
    """What to raise where the library refuses a prompt or its pictures."""
    return InvalidRequestError(f"the model cannot take this prompt and its pictures: {error}")


def _words(turn: Turn) -> str:
    return "".join(part for part in turn.parts if isinstance(part, str))


def _message(turn: Turn) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind}  # the pixels follow later
        for part in turn.parts
    ]
    return {"role": turn.role, "content": content}


def as_family_takes_it(conversation: Conversation, family: Family) -> Conversation:
    """The conversation with every video told as its frames where the family, or the mixture, knows no video."""
    kinds = {visual.kind for visual in conversation.visuals}
    as_video = family.takes_video and (family.mixes_video or kinds == {"video"})
    turns = []
    for turn in conversation.turns:
        parts: list[str | VisualInput] = []
        for part in turn.parts:
            if isinstance(part, str) or part.kind == "image":
                parts.append(part)
            else:
                parts += [_lengthened(part, family.min_video_frames)] if as_video else _stills(part)
        turns.append(replace(turn, parts=tuple(parts)))
    return replace(conversation, turns=tuple(turns))


def _stills(video: VisualInput) -> list[VisualInput]:
    return [
        VisualInput(kind="image", frames=frame[None], timestamps_s=np.zeros(1), source=video.source)
        for frame in video.frames
    ]


def _lengthened(video: VisualInput, count: int) -> VisualInput:
    if len(video.frames) >= count:
        return video
    frames = video.frames.repeat(count, axis=0)[:count]
    return replace(video, frames=frames, timestamps_s=video.timestamps_s.repeat(count)[:count])
