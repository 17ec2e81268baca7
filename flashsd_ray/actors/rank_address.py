"""Where a rank of a split target is found; known to processes that hold no tensors too."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RankAddress:
    """Where a rank is told what to do, and where the other ranks reach it."""

    address: str  # unix:PATH or tcp:HOST:PORT
    host: str  # of its machine
    key: bytes = field(repr=False)  # both ends prove that they have it
