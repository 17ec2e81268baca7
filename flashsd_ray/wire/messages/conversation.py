"""What a client says to the model: checked at once, decoded later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from flashsd_ray.config import MediaConfig, ServingConfig
from flashsd_ray.errors import InvalidRequestError, MediaLimitError
from flashsd_ray.types import Turn, VisualInput
from flashsd_ray.wire.v1 import captioning_pb2 as pb

Role = Literal["system", "user", "assistant"]

_ROLES: dict[int, Role] = {
    pb.Turn.ROLE_UNSPECIFIED: "user",
    pb.Turn.ROLE_USER: "user",
    pb.Turn.ROLE_ASSISTANT: "assistant",
    pb.Turn.ROLE_SYSTEM: "system",
}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image or a video that is still to be decoded."""

    where: str  # the field that holds it, for errors
    message: pb.Image | pb.Video


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A conversation whose pictures are still to be decoded."""

    turns: tuple[tuple[Role, tuple[str | Picture, ...]], ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of all turns, in order."""
        return tuple(part for _, parts in self.turns for part in parts if isinstance(part, Picture))

    def filled(self, visuals: Sequence[VisualInput]) -> tuple[Turn, ...]:
        """The turns with a decoded picture in the place of each of ``pictures``."""
        decoded = iter(visuals)
        return tuple(Turn(role=role, parts=tuple(_filled(parts, decoded))) for role, parts in self.turns)


def outline_of(turns: Sequence[pb.Turn], serving: ServingConfig, media: MediaConfig) -> Outline:
    """The conversation that the messages make.

    Raises:
        InvalidRequestError: there is no turn, one says nothing or has an unknown role, or there is too much text.
        MediaLimitError: there are more pictures than ``media.max_inputs``.
    """
    if not turns:
        raise InvalidRequestError("turns is empty; a request needs at least one")
    budget = _Budget(serving.max_prompt_characters, media.max_inputs)
    return Outline(tuple(_turn(turn, f"turns[{index}]", budget) for index, turn in enumerate(turns)))


class _Budget:
    """How much more a request may hold."""

    def __init__(self, max_characters: int, max_pictures: int) -> None:
        self._max_characters, self._max_pictures = max_characters, max_pictures
        self._characters = self._pictures = 0

    def count(self, part: str | Picture) -> None:
        # An empty text counts as well: millions of them fit into one message.
        self._characters += max(len(part), 1) if isinstance(part, str) else 0
        self._pictures += isinstance(part, Picture)
        if self._characters > self._max_characters:
            raise InvalidRequestError(
                f"turns hold too much text; serving.max_prompt_characters allows {self._max_characters}"
            )
        if self._pictures > self._max_pictures:
            raise MediaLimitError(f"turns hold too many pictures; media.max_inputs allows {self._max_pictures}")


def _turn(turn: pb.Turn, where: str, budget: _Budget) -> tuple[Role, tuple[str | Picture, ...]]:
    if turn.role not in _ROLES:
        raise InvalidRequestError(f"{where}.role is {turn.role}, which is none of Turn.Role")
    if not turn.parts:
        raise InvalidRequestError(f"{where}.parts is empty")
    return _ROLES[turn.role], tuple(_parts(turn, where, budget))


def _parts(turn: pb.Turn, where: str, budget: _Budget) -> Iterator[str | Picture]:
    for index, message in enumerate(turn.parts):
        part = _part(message, f"{where}.parts[{index}]")
        budget.count(part)
        yield part


def _part(part: pb.Part, where: str) -> str | Picture:
    kind = part.WhichOneof("part")
    if kind == "text":
        return part.text
    if kind == "image":
        return Picture(f"{where}.image", part.image)
    if kind == "video":
        return Picture(f"{where}.video", part.video)
    raise InvalidRequestError(f"{where} holds neither text nor image nor video")


def _filled(parts: Sequence[str | Picture], decoded: Iterator[VisualInput]) -> Iterator[str | VisualInput]:
    for part in parts:
        yield next(decoded) if isinstance(part, Picture) else part
