"""Which kinds are seen together: neighbours in the catalog often, strangers rarely, some pairs never in training."""

from __future__ import annotations

import random
import zlib
from itertools import combinations

from flashsd_ray.training.town.catalog import KIND_NAMES, PLACES, Place
from flashsd_ray.training.town.scene import Split

NOVEL_SHARE = 0.12  # of the pairs of a place, kept out of training and of its held-out clips
STRANGER_SHARE = 0.12  # of scenes, in which one object is from elsewhere
NEIGHBOUR_WEIGHT = 5.0


def is_novel(kind: str, other: str) -> bool:
    """Whether training never shows these two together."""
    first, second = sorted((kind, other))
    return zlib.crc32(f"pair:{first}:{second}".encode()) % 1000 < 1000 * NOVEL_SHARE


def novel_pairs(place: Place) -> tuple[tuple[str, str], ...]:
    """The pairs of this place that training never shows."""
    return tuple(pair for pair in combinations(place.kinds, 2) if is_novel(*pair))


def cast(stream: random.Random, place: Place, count: int, split: Split) -> list[str]:
    """`count` different kinds for a scene, the first ones the most likely to be neighbours."""
    chosen = list(stream.choice(novel_pairs(place))) if split == "novel" else []
    if not chosen:
        chosen = [stream.choice(KIND_NAMES if stream.random() < STRANGER_SHARE else place.kinds)]
    while len(chosen) < count:
        fitting = [kind for kind in place.kinds if _fits(kind, chosen, split)]
        if not fitting:
            break
        weights = [NEIGHBOUR_WEIGHT if _is_beside(place, kind, chosen) else 1.0 for kind in fitting]
        chosen += stream.choices(fitting, weights)
    return chosen


def _fits(kind: str, chosen: list[str], split: Split) -> bool:
    return kind not in chosen and (split == "novel" or not any(is_novel(kind, other) for other in chosen))


def _is_beside(place: Place, kind: str, chosen: list[str]) -> bool:
    where = place.kinds.index(kind)
    return any(abs(where - place.kinds.index(other)) == 1 for other in chosen if other in place.kinds)


def places_with_novel_pairs() -> tuple[str, ...]:
    """The places that a scene of the novel split can be in."""
    return tuple(name for name, place in PLACES.items() if novel_pairs(place))
