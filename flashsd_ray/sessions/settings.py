"""What a session was opened with, checked and completed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flashsd_ray.actors.service import ModelCard
from flashsd_ray.config import Config
from flashsd_ray.errors import InvalidRequestError, NotFoundError
from flashsd_ray.sessions.events import Mode, Open
from flashsd_ray.sessions.window import WindowPolicy, window_policy
from flashsd_ray.types import SamplingParams

# Of the context, at most: a small model still sees something.
RESERVED_SHARE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The wishes of one session."""

    model: str
    mode: Mode
    period_s: float
    prompt: str
    sampling: SamplingParams
    draft_length: int | None
    policy: WindowPolicy
    frame_tokens: int  # prompt positions that one frame takes; 0: that depends on the frame
    history_tokens: int  # prompt positions that earlier questions and answers may take; with frames if those vary

    @classmethod
    def of(cls, opening: Open, card: ModelCard, config: Config) -> Settings:
        """What the first message asks for, within what the operator allows and the model can take.

        Raises:
            InvalidRequestError: a wish lies outside its range, or a mode that captions by itself has no prompt.
            NotFoundError: another model is asked for.
        """
        name = config.serving.model_name or card.name
        if opening.model not in ("", name, card.name):
            raise NotFoundError(f"there is no model {opening.model!r} here; the model is {name!r}")
        if opening.mode is not Mode.ON_DEMAND and not opening.prompt:
            raise InvalidRequestError(f"mode {opening.mode.value} needs a prompt")
        check_text(opening.prompt, config)
        sampling = opening.sampling or SamplingParams()
        if sampling.max_new_tokens > card.max_new_tokens:
            raise InvalidRequestError(
                f"max_new_tokens is {sampling.max_new_tokens}; scheduling.max_new_tokens allows {card.max_new_tokens}"
            )
        positions = min(card.context_length, config.scheduling.cache_rows)
        reserved = min(config.sessions.reserved_tokens, positions // RESERVED_SHARE)
        frame_tokens = card.num_vision_tokens and card.num_vision_tokens + 1  # a template parts frames with a token
        context_frames = max((positions - reserved) // frame_tokens, 1) if frame_tokens else None
        return cls(
            model=name,
            mode=opening.mode,
            period_s=opening.period_s,
            prompt=opening.prompt,
            sampling=sampling,
            draft_length=opening.draft_length,
            policy=window_policy(
                config.sessions,
                keep_first=opening.keep_first,
                max_frames=opening.max_frames,
                context_frames=context_frames,
            ),
            frame_tokens=frame_tokens,
            history_tokens=reserved // 2 if frame_tokens else positions // 2,
        )

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Settings:
        """The settings whose plain values these are."""
        policy = WindowPolicy(**state["policy"])
        return cls(**(dict(state) | {"mode": Mode(state["mode"]), "policy": policy}))


def check_text(text: str, config: Config) -> None:
    """Raises InvalidRequestError when a text of a client is longer than ``serving.max_prompt_characters``."""
    if len(text) > config.serving.max_prompt_characters:
        limit = f"serving.max_prompt_characters allows {config.serving.max_prompt_characters}"
        raise InvalidRequestError(f"the text has {len(text)} characters; {limit}")
