"""What rank 0 tells the others before each exchange: shapes and places, small enough for one line of JSON.

Tensors do not travel in orders; they follow by broadcast, from device to device.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from flashsd_ray.errors import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Answered as soon as the rank has loaded its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The ranks shall connect; their store is here."""

    host: str
    port: int
    timeout_s: float  # longest wait for each other, now and within a round


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCache:
    """Cache rows shall be there under a new number; caches that are not in use any more are let go."""

    number: int
    num_rows: int
    in_use: tuple[int, ...] = ()  # older numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShape:
    """One RowGroup without its tensors."""

    batch: int
    rows: int
    length: int
    first_row: int | None  # where its keys are one run of cache rows; None: their rows follow
    is_masked: bool  # whether first positions follow
    prompt_start: int | None = None
    num_read: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A flat batch follows and goes through all layers."""

    cache: int
    num_rows: int
    groups: tuple[GroupShape, ...]
    deepstack: tuple[int, ...] = ()  # rows to add to, per early layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Hidden rows follow, and every rank multiplies them with its part of the vocabulary."""

    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Answered with what the rank holds."""


Order = Hello | Join | NewCache | Forward | Head | Measure
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Hello, Join, NewCache, Forward, Head, Measure)}


def encode(order: Order) -> bytes:
    """The order as one line."""
    return json.dumps([type(order).__name__, asdict(order)]).encode()


def decode(line: bytes | bytearray) -> Order:
    """The order of a line.

    Raises:
        ProtocolError: it is none.
    """
    try:
        name, values = json.loads(line)
        if name == "Forward":
            values["groups"] = [GroupShape(**group) for group in values["groups"]]
        order: Order = _KINDS[name](**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProtocolError(f"a rank was sent something that is no order: {bytes(line[:80])!r}") from error
    return order
