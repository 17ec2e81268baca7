"""The clock, log and checkpoints that every stage shares; a killed run goes on where it was."""

import logging
import time
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

LOG_EVERY_S = 5.0
SAVE_EVERY_S = 150.0


class RunClock:
    """How much of a stage's time is spent, kept across resumes."""

    def __init__(self, minutes: float, spent_s: float = 0.0) -> None:
        self.budget_s = max(1e-3, minutes * 60.0)
        self._started = time.monotonic() - spent_s
        self._logged_s = self._saved_s = spent_s

    @property
    def spent_s(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the time that is spent, at most 1."""
        return min(1.0, self.spent_s / self.budget_s)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.spent_s >= self.budget_s

    def is_log_due(self) -> bool:
        """True every few seconds."""
        is_due = self.spent_s - self._logged_s >= LOG_EVERY_S
        if is_due:
            self._logged_s = self.spent_s
        return is_due

    def is_save_due(self) -> bool:
        """True every few minutes."""
        is_due = self.spent_s - self._saved_s >= SAVE_EVERY_S
        if is_due:
            self._saved_s = self.spent_s
        return is_due


def log_step(stage: str, step: int, clock: RunClock, figures: dict[str, float]) -> None:
    """One line of progress is in the log."""
    shown = " ".join(f"{name}={value:.3f}" for name, value in figures.items())
    left = max(0.0, clock.budget_s - clock.spent_s)
    logger.info("%s step=%d spent_s=%.0f eta_s=%.0f %s", stage, step, clock.spent_s, left, shown)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """`state` lies at `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote; only tensors and plain values."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
