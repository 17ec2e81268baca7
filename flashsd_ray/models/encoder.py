"""Conversation in, rows for the language model out."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch

from flashsd_ray.config import EncodingConfig
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.chat import as_family_takes_it, refusal
from flashsd_ray.models.merging import merged
from flashsd_ray.models.picture_batch import PictureBatch, Plan
from flashsd_ray.models.preprocessing import Modality, Preprocessor
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.models.segments import segments_of_all, segments_of_each
from flashsd_ray.models.vision import TOGETHER, VisionTower
from flashsd_ray.models.visual_cache import VisualCache
from flashsd_ray.types import Conversation, EncodedPrompt, VisualSegment, VisualTokens

FOR_THE_TOWER = frozenset(name for names in TOGETHER.values() for name in names) | {"image_sizes_videos"}


class LocalEncoder:
    """Runs the processor, the vision tower and the projector of a target in this process; any thread may call it."""

    def __init__(
        self, target: PretrainedTarget, cache: VisualCache | None = None, config: EncodingConfig | None = None
    ) -> None:
        self._target = target
        self._cache = cache
        config = config or EncodingConfig()
        self._preprocessor = Preprocessor(target, config.max_aspect_ratio)
        self._tower = VisionTower(target, config.images_per_forward)
        self._lock = Lock()  # the library's forward is ended by a hook on the model, which all threads share
        self.num_frames = 0  # of all conversations so far
        self.num_frames_encoded = 0  # those of them that went through the vision tower

    def encode(self, conversation: Conversation) -> EncodedPrompt:
        """The conversation with visual features in place.

        Raises:
            InvalidRequestError: the model cannot take this combination of text and pictures.
        """
        return self.encode_many([conversation])[0]

    def encode_many(self, conversations: Sequence[Conversation]) -> list[EncodedPrompt]:
        """The same for several conversations, whose pictures go through the vision tower together.

        Raises:
            InvalidRequestError: the model cannot take one of them.
        """
        prompts = []
        for outcome in self.encode_each(conversations):
            if isinstance(outcome, InvalidRequestError):
                raise outcome
            prompts.append(outcome)
        return prompts

    @torch.inference_mode()
    def encode_each(self, conversations: Sequence[Conversation]) -> list[EncodedPrompt | InvalidRequestError]:
        """The same, with the reason in the place of each conversation that cannot be encoded."""
        with self._lock:
            batch = PictureBatch(self._target.family, self._preprocessor, self._tower, self._cache)
            plans = [self._planned(conversation, batch) for conversation in conversations]
            batch.read()
            self.num_frames += batch.num_frames
            self.num_frames_encoded += batch.num_frames_encoded
            return [self._finished(plan, batch.tokens(plan)) if isinstance(plan, Plan) else plan for plan in plans]

    def process(self, conversation: Conversation) -> dict[str, Any]:
        """What the library's processor makes of a conversation: the keyword arguments of its forward, with pixels.

        Raises:
            InvalidRequestError: the model cannot take this combination of text and pictures.
        """
        return self._preprocessor.everything(as_family_takes_it(conversation, self._target.family))

    def _planned(self, conversation: Conversation, batch: PictureBatch) -> Plan | InvalidRequestError:
        try:
            return batch.add(conversation)
        except InvalidRequestError as error:
            return error

    def _finished(self, plan: Plan, tokens: dict[Modality, list[VisualTokens]]) -> EncodedPrompt | InvalidRequestError:
        try:
            inputs = plan.inputs or self._preprocessor.around(plan.text, tokens.get("image", ()))
            segments = self._segments(inputs["input_ids"][0].tolist(), plan.conversation, tokens)
            vision = {modality: self._tower.given_back(modality, made) for modality, made in tokens.items()}
            wanted = {name: value for name, value in inputs.items() if name not in FOR_THE_TOWER}
            return merged(self._target, wanted, vision, segments)
        except InvalidRequestError as error:
            return error
        except ValueError as error:
            return refusal(error)

    def _segments(
        self, token_ids: list[int], told: Conversation, tokens: dict[Modality, list[VisualTokens]]
    ) -> tuple[VisualSegment, ...]:
        if not token_ids:
            raise InvalidRequestError("the prompt is empty: nothing says what to answer")
        if not self._target.family.independent_images:
            return segments_of_all(token_ids, self._target.placeholder_ids, [visual.digest for visual in told.visuals])
        named = {}
        for modality, token_id in self._target.placeholders.items():
            digests = [visual.digest for visual in told.visuals if visual.kind == modality]
            named[token_id] = [
                (digest, len(made)) for digest, made in zip(digests, tokens.get(modality, ()), strict=True)
            ]
        return segments_of_each(token_ids, named)
