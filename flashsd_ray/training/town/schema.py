"""The schema of answers in JSON: which keys there are, in which order, and what may stand behind them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

from flashsd_ray.training.town.catalog import COLORS, KIND_NAMES, PLACE_NAMES, TIMES_OF_DAY, WEATHERS, Motion
from flashsd_ray.training.town.scene import Column, Deed, Lane

Rule = Callable[[Any], bool]
POSITIONS = frozenset(
    " ".join(part for part in (lane, column) if part)
    for lane in ("", *get_args(Lane))
    for column in ("", *get_args(Column))
)


def parsed(answer: str) -> dict[str, Any] | None:
    """The answer as plain values; None if it is no JSON or does not keep to the schema."""
    try:
        said = json.loads(answer)
    except ValueError:
        return None
    return said if _keeps(said, _ANSWER) else None


def _keeps(said: Any, rules: dict[str, Rule]) -> bool:
    return isinstance(said, dict) and list(said) == list(rules) and all(rule(said[key]) for key, rule in rules.items())


def _one_of(*values: Any) -> Rule:
    return lambda said: (said is None or isinstance(said, str)) and said in values


def _is_count(said: Any) -> bool:
    return isinstance(said, int) and not isinstance(said, bool) and said >= 1


def _are_objects(said: Any) -> bool:
    return isinstance(said, list) and all(_keeps(item, _OBJECT) for item in said)


def _is_interaction(said: Any) -> bool:
    if said is None:
        return True
    rules = (_one_of(*KIND_NAMES), _one_of(*get_args(Deed)), _one_of(*KIND_NAMES))
    return isinstance(said, list) and len(said) == 3 and all(rule(part) for rule, part in zip(rules, said, strict=True))


_OBJECT: dict[str, Rule] = {
    "kind": _one_of(*KIND_NAMES),
    "count": _is_count,
    "color": _one_of(None, *COLORS),
    "size": _one_of("large", "small"),
    "motion": _one_of(*get_args(Motion)),
    "position": _one_of(*POSITIONS),
}
_ANSWER: dict[str, Rule] = {
    "place": _one_of(*PLACE_NAMES),
    "time": _one_of(*TIMES_OF_DAY),
    "weather": _one_of(*WEATHERS),
    "objects": _are_objects,
    "interaction": _is_interaction,
    "enters": _one_of(None, *KIND_NAMES),
    "leaves": _one_of(None, *KIND_NAMES),
}
