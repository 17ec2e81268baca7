"""What a measurement found, and whether it found anything that must not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """The rows of a measurement, as they are saved."""

    rows: Sequence[Mapping[str, Any]]
    is_sound: bool = True  # False: an answer was wrong, a request was lost, a limit was passed
    details: Mapping[str, Any] = field(default_factory=dict)  # what does not fit into rows: series, mismatches
