"""Bytes that may be anything become a message, or a value that says why they are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message

from flashsd_ray.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a message should: the bytes were none."""

    message_name: str

    @property
    def error(self) -> InvalidRequestError:
        """What the sender is told."""
        return InvalidRequestError(f"the bytes are no {self.message_name}")


def tolerant_parser(kind: type[Message]) -> Callable[[bytes], Message | Unreadable]:
    """A function that never raises, whatever the bytes are."""

    def parse(data: bytes) -> Message | Unreadable:
        try:
            return kind.FromString(data)
        except DecodeError:
            return Unreadable(kind.DESCRIPTOR.full_name)

    return parse
