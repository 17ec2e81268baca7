"""How clips are cut: the rule as a user writes it, and the arithmetic of windows and scenes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Literal

from flashsd_ray.errors import ConfigError

Kind = Literal["whole", "window", "scenes"]
Span = tuple[float, float]  # seconds

SHORTEST_REST = 0.1  # of a window; what is left at the end of a clip and shorter joins the window before
SHORTEST_SCENE_S = 1.0
FORMS = "whole, window:SECONDS, scenes or scenes:SECONDS (of the shortest scene)"


@dataclass(frozen=True, slots=True)
class SegmentRule:
    """One way of cutting."""

    kind: Kind = "whole"
    seconds: float = 0.0  # of a window, or of the shortest scene

    @classmethod
    def parse(cls, text: str) -> SegmentRule:
        """The rule that the text names.

        Raises:
            ConfigError: it names none.
        """
        kind, colon, number = text.partition(":")
        try:
            seconds = float(number) if colon else 0.0
        except ValueError:
            seconds = math.nan
        is_known = kind in ("window", "scenes") if colon else kind in ("whole", "scenes")
        if not is_known or (colon and not 0.0 < seconds < math.inf):
            raise ConfigError(f"segments must be {FORMS}, got {text!r}")
        if kind == "scenes":
            return cls("scenes", seconds or SHORTEST_SCENE_S)
        return cls("window", seconds) if colon else cls()

    def check(self) -> None:
        """Raises ConfigError when the package that finds scenes is needed and not installed."""
        if self.kind == "scenes" and find_spec("scenedetect") is None:
            raise ConfigError("scenes need PySceneDetect: pip install scenedetect-headless")


def num_windows(start_s: float, end_s: float, length_s: float) -> int:
    """How many pieces ``windows`` makes."""
    return max(1, math.ceil((end_s - start_s) / length_s - SHORTEST_REST))


def windows(start_s: float, end_s: float, length_s: float) -> list[Span]:
    """The time in pieces of ``length_s``; the last one is shorter, or longer by less than a tenth of a piece."""
    edges = [start_s + index * length_s for index in range(num_windows(start_s, end_s, length_s))]
    return list(pairwise([*edges, end_s]))


def between_cuts(start_s: float, end_s: float, cuts_s: Sequence[float], shortest_s: float) -> list[Span]:
    """The time between cuts; a cut that would leave a piece shorter than ``shortest_s`` is passed over."""
    edges = [start_s]
    for cut_s in sorted(cuts_s):
        if cut_s - edges[-1] >= shortest_s and end_s - cut_s >= shortest_s:
            edges.append(cut_s)
    return list(pairwise([*edges, end_s]))
