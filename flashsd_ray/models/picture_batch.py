"""The pictures of conversations that are encoded together: each is looked at once, and not at all if it was before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from flashsd_ray.models.chat import as_family_takes_it
from flashsd_ray.models.preprocessing import PIXELS, Modality, Pixels, Preprocessor, split_pixels
from flashsd_ray.models.pretrained import Family
from flashsd_ray.models.vision import VisionTower
from flashsd_ray.models.visual_cache import VisualCache
from flashsd_ray.types import Conversation, VisualInput, VisualTokens

MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A conversation whose pictures have names; its prompt is put together when their tokens are there."""

    conversation: Conversation  # as the family takes it
    text: str = ""  # with one placeholder for each image, unless there are inputs
    inputs: dict[str, Any] | None = None  # of the library's forward, pixels included
    names: dict[Modality, list[str]] = field(default_factory=dict)


class PictureBatch:
    """Collects pictures, then has those that nobody knows read in as few forwards as possible."""

    def __init__(
        self, family: Family, preprocessor: Preprocessor, tower: VisionTower, cache: VisualCache | None
    ) -> None:
        self._family = family
        self._preprocessor = preprocessor
        self._tower = tower
        self._cache = cache
        self._known: dict[str, VisualTokens] = {}
        self._waiting: dict[str, Pixels] = {}
        self.num_frames = 0
        self.num_frames_encoded = 0

    def add(self, conversation: Conversation) -> Plan:
        """The pictures of the conversation are known, or wait to be read.

        Raises:
            InvalidRequestError: the model cannot take this combination of text and pictures.
        """
        told = as_family_takes_it(conversation, self._family)
        self.num_frames += _num_frames(told.visuals)
        return self._each(told) if self._family.independent_images else self._together(told)

    def read(self) -> None:
        """Every picture is known."""
        for name, tokens in self._tower.read(self._waiting).items():
            self._keep(name, tokens)
        self._waiting.clear()

    def tokens(self, plan: Plan) -> dict[Modality, list[VisualTokens]]:
        """What was made of the pictures, in the order of the pictures of each kind."""
        return {modality: [self._known[name] for name in names] for modality, names in plan.names.items() if names}

    def _each(self, told: Conversation) -> Plan:
        visuals = {modality: [v for v in told.visuals if v.kind == modality] for modality in MODALITIES}
        names = {modality: [self._tower.key(v.digest) for v in visuals[modality]] for modality in MODALITIES}
        if visuals["video"]:
            plan = Plan(told, inputs=self._preprocessor.everything(told), names=names)
        else:
            plan = Plan(told, text=self._preprocessor.format.write(told), names=names)
        for modality in MODALITIES:
            named = dict(zip(names[modality], visuals[modality], strict=True))
            missing = {name: visual for name, visual in named.items() if not self._finds(name)}
            if plan.inputs is None:
                pixels = dict(zip(missing, self._preprocessor.pixels(list(missing.values())), strict=True))
            else:
                pixels = dict(zip(names[modality], split_pixels(plan.inputs, modality), strict=True))
            self._waiting |= {name: pixels[name] for name in missing}
            self.num_frames_encoded += _num_frames(missing.values())
        return plan

    def _together(self, told: Conversation) -> Plan:
        """All pictures of a kind have one name, since they may depend on each other."""
        inputs = self._preprocessor.everything(told)
        plan = Plan(told, inputs=inputs)
        is_new = False
        for modality in MODALITIES:
            if PIXELS[modality][0] not in inputs:
                continue
            name = self._tower.key(modality, *(visual.digest for visual in told.visuals))
            if not self._finds(name):
                is_new = True
                self._keep(name, self._tower.read_together(inputs, modality))
            plan.names[modality] = [name]
        self.num_frames_encoded += _num_frames(told.visuals) if is_new else 0
        return plan

    def _finds(self, name: str) -> bool:
        if name in self._known or name in self._waiting:
            return True
        tokens = self._cache.get(name) if self._cache is not None else None
        if tokens is None:
            return False
        self._known[name] = tokens
        return True

    def _keep(self, name: str, tokens: VisualTokens) -> None:
        self._known[name] = tokens
        if self._cache is not None:
            self._cache.put(name, tokens)


def _num_frames(visuals: Iterable[VisualInput]) -> int:
    return sum(len(visual.frames) for visual in visuals)
