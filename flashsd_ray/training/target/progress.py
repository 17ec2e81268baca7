"""The clock, log and checkpoints that every stage shares; a killed run goes on where it was."""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

LOG_EVERY_S = 5.0
SAVE_EVERY_S = 150.0
VALIDATE_EVERY_S = 900.0
_STOPPED = threading.Event()


def stop_at_signals() -> None:
    """SIGTERM and SIGINT end the stage that runs: it writes its checkpoint and returns."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _STOPPED.set())


def is_stopped() -> bool:
    """Whether a signal has asked the stage to end."""
    return _STOPPED.is_set()


class RunClock:
    """How much of a stage's steps, or of its time, is spent, kept across resumes.

    Steps do not depend on what else the machine does; minutes do.
    """

    def __init__(self, minutes: float, spent_s: float = 0.0, *, steps: int | None = None, step: int = 0) -> None:
        self.budget_s = max(1e-3, minutes * 60.0)
        self.step = step
        self._steps = steps  # None: the time decides
        self._first_step = step
        self._first_s = spent_s
        self._started = time.monotonic() - spent_s
        self._logged_s = self._saved_s = self._validated_s = spent_s

    @property
    def spent_s(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._started

    @property
    def left_s(self) -> float:
        """Seconds that are left, by the steps since the start or resume if steps decide."""
        if self._steps is None:
            return max(0.0, self.budget_s - self.spent_s)
        pace_s = (self.spent_s - self._first_s) / max(1, self.step - self._first_step)
        return max(0, self._steps - self.step) * pace_s

    @property
    def progress(self) -> float:
        """Share of the stage that is done, at most 1."""
        share = self.spent_s / self.budget_s if self._steps is None else self.step / max(1, self._steps)
        return min(1.0, share)

    @property
    def is_done(self) -> bool:
        """Whether the stage has run its course."""
        return self.spent_s >= self.budget_s if self._steps is None else self.step >= self._steps

    @property
    def is_over(self) -> bool:
        """Whether to end: the stage has run its course, or a signal has asked for it."""
        return self.is_done or is_stopped()

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

    def is_validation_due(self) -> bool:
        """True every quarter of an hour."""
        is_due = self.spent_s - self._validated_s >= VALIDATE_EVERY_S
        if is_due:
            self._validated_s = self.spent_s
        return is_due


def log_step(stage: str, step: int, clock: RunClock, figures: dict[str, float]) -> None:
    """One line of progress is in the log."""
    shown = " ".join(f"{name}={value:.3f}" for name, value in figures.items())
    logger.info("%s step=%d spent_s=%.0f eta_s=%.0f %s", stage, step, clock.spent_s, clock.left_s, shown)


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
