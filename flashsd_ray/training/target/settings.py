"""What every stage of target training is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flashsd_ray.errors import ConfigError
from flashsd_ray.training.optimizer import Rates

BEFORE = {"align": "vision", "short": "align", "captions": "short"}  # whose checkpoint a stage begins with


def rates(learning_rate: float) -> Rates:
    """How fast a stage learns that begins at this rate."""
    return Rates(matrices=learning_rate, others=learning_rate, warm_up=0.03, last=0.02, decay=0.05, second_beta=0.97)


def is_inner(name: str) -> bool:
    """Whether the weight of this name belongs to a layer of a tower."""
    return "layers." in name


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """How far a stage is, and what it measured just now."""

    stage: str
    step: int
    steps: int
    spent_s: float
    left_s: float
    figures: dict[str, float]
    is_heldout: bool  # measured on clips that training never shows


Listener = Callable[[Event], None]


def _to_nobody(event: Event) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: how long it learns, from which clips, and where its files lie."""

    name: str  # vision, align, short or captions
    out_dir: Path
    steps: int
    seed: int = 1  # of weights and clips
    is_resumed: bool = False  # go on from the stage's checkpoint, if there is one
    listener: Listener = _to_nobody

    @property
    def path(self) -> Path:
        """The stage's checkpoint."""
        return self.out_dir / f"{self.name}.pt"

    @property
    def goes_on(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.is_resumed and self.path.exists()

    def before(self, name: str) -> Path:
        """The checkpoint of an earlier stage.

        Raises:
            ConfigError: there is none.
        """
        path = self.out_dir / f"{name}.pt"
        if not path.exists():
            raise ConfigError(f"stage {self.name} begins where stage {name} ended, but there is no {path}")
        return path
