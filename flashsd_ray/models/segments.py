"""Which rows of a prompt hold which picture, named by content, so that prompts that begin alike can share rows."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.types import VisualSegment


def segments_of_each(
    token_ids: Sequence[int],
    pictures: Mapping[int, Sequence[tuple[str, int]]],  # by placeholder: digest and number of rows of each picture
) -> tuple[VisualSegment, ...]:
    """A segment for each picture, or for each part of one where text stands between its rows.

    Raises:
        InvalidRequestError: there are more or fewer placeholders than rows of pictures.
    """
    segments = []
    waiting = {token_id: deque((digest, 0, rows) for digest, rows in entries) for token_id, entries in pictures.items()}
    for token_id, start, length in _runs(token_ids, pictures):
        for name, taken in _taken(waiting[token_id], length):
            segments.append(VisualSegment(start=start, num_tokens=taken, digest=name))
            start += taken  # noqa: PLW2901 - the run is used up from its start
    if any(waiting.values()):
        raise _mismatch()
    return tuple(segments)


def segments_of_all(
    token_ids: Sequence[int],
    placeholder_ids: Collection[int],
    digests: Sequence[str],  # of every picture of the request
) -> tuple[VisualSegment, ...]:
    """A segment for each run of placeholders, for families whose rows may depend on every picture of the request.

    Raises:
        InvalidRequestError: there are placeholders and no pictures.
    """
    whole = "+".join(digests)
    runs = list(_runs(token_ids, placeholder_ids))
    if runs and not digests:
        raise _mismatch()
    return tuple(
        VisualSegment(start=start, num_tokens=length, digest=f"{whole}#{index}")
        for index, (_, start, length) in enumerate(runs)
    )


def _runs(token_ids: Sequence[int], placeholder_ids: Collection[int]) -> Iterator[tuple[int, int, int]]:
    """Token id, start and length of each run of equal placeholders."""
    start = 0
    for token_id, run in itertools.groupby(token_ids):
        length = len(list(run))
        if token_id in placeholder_ids:
            yield token_id, start, length
        start += length


def _taken(
    waiting: deque[tuple[str, int, int]],  # digest, rows that are placed, rows that are left
    length: int,
) -> Iterator[tuple[str, int]]:
    """The pictures, or parts of pictures, that fill a run of so many rows; they wait no longer."""
    while length:
        if not waiting:
            raise _mismatch()
        digest, placed, left = waiting.popleft()
        taken = min(left, length)
        if taken < left:
            waiting.appendleft((digest, placed + taken, left - taken))
        yield (digest if taken == placed + left else f"{digest}@{placed}"), taken
        length -= taken


def _mismatch() -> InvalidRequestError:
    return InvalidRequestError("the prompt has placeholders for pictures that are not there, or too few of them")
