"""What the study measured, before anything is concluded from it; it can be kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from flashsd_ray.bench.scaling.costs import Costs, Supply
from flashsd_ray.bench.scaling.fit import Counted, Machine
from flashsd_ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Loads and what they ran on."""

    machine: Machine
    known: Costs  # what was measured by itself
    idle_s: Mapping[str, float]  # processor time of each part in a second without requests
    num_watched: int  # parts that the fleet looks after
    loads: tuple[Counted, ...]  # on one lane, to tell costs from
    checked: Mapping[int, tuple[Counted, ...]]  # by number of lanes, to compare predictions with
    supplies: Mapping[int, Supply]
    users_per_lane: int
    new_tokens: int
    draft_length: int
    num_frames: int
    num_pictures: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Raw:
        """What ``as_dict`` made, also after it was JSON.

        Raises:
            ConfigError: it is not that.
        """
        try:
            return cls(
                machine=Machine(**kept["machine"]),
                known=Costs(**kept["known"]),
                idle_s=kept["idle_s"],
                loads=tuple(map(_counted, kept["loads"])),
                checked={int(number): tuple(map(_counted, several)) for number, several in kept["checked"].items()},
                supplies={int(number): Supply(**one) for number, one in kept["supplies"].items()},
                **{name: kept[name] for name in _NUMBERS},
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(f"this is no measurement of this study, or one of another version: {error!r}") from error


_NUMBERS = ("num_watched", "users_per_lane", "new_tokens", "draft_length", "num_frames", "num_pictures")


def _counted(kept: Mapping[str, Any]) -> Counted:
    known = {item.name for item in fields(Counted)}
    values = {name: value for name, value in kept.items() if name in known}
    return Counted(**values | {"survival": tuple(kept["survival"])})
