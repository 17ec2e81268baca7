"""What every request must come to: the answer that it would have had undisturbed, or an error that says: come again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["right", "retriable", "quarantined", "wrong", "duplicated", "lost"]
SOUND: frozenset[Verdict] = frozenset(("right", "retriable"))
RETRIABLE = frozenset(("429", "503", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "BROKEN"))
QUARANTINED = frozenset(("422", "INVALID_ARGUMENT"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a client has of one answer."""

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: str = ""


def judged(
    code: str,  # OK, or what the last attempt ended with
    said: Sequence[Said],  # one for each question; of an answer that broke off, what there is of it
    expected: Sequence[Said],
    *,
    is_poison: bool = False,
) -> Verdict:
    """What a request came to."""
    if any(not _begins(one, right) for one, right in zip(said, expected, strict=False)):
        repeats = any(
            _is_repetition(one.token_ids, right.token_ids) for one, right in zip(said, expected, strict=False)
        )
        return "duplicated" if repeats else "wrong"
    if code == "OK":
        return "right" if tuple(said) == tuple(expected) else "lost"
    if is_poison and code in QUARANTINED:
        return "quarantined"
    return "retriable" if code in RETRIABLE else "lost"


def is_sound(verdict: Verdict, *, is_poison: bool) -> bool:
    """Whether that may happen; a poison is not answered, and nobody else is quarantined."""
    return verdict in ("quarantined", "retriable") if is_poison else verdict in SOUND


def _begins(said: Said, right: Said) -> bool:
    is_prefix = right.text.startswith(said.text) and right.token_ids[: len(said.token_ids)] == said.token_ids
    return is_prefix and said.finish_reason in ("", right.finish_reason)


def _is_repetition(said: Sequence[int], right: Sequence[int]) -> bool:
    """Whether the tokens are the right ones with some of them said again in between."""
    first = next((index for index, pair in enumerate(zip(said, right, strict=False)) if pair[0] != pair[1]), len(right))
    rest = list(said[first:])
    return any(list(right[begin : begin + len(rest)]) == rest for begin in range(first)) and bool(rest)
