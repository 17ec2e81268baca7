"""The clock and the checkpoints that every stage shares; a killed run goes on where it was."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flashsd_ray.training.optimizer import Optimizers
from flashsd_ray.training.target.settings import Event, Stage

REPORT_EVERY_S = 1.0
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
    """How many of a stage's steps are done, and how long they took, kept across resumes.

    Steps do not depend on what else the machine does.
    """

    def __init__(self, steps: int, *, step: int = 0, spent_s: float = 0.0) -> None:
        self.steps = steps
        self.step = step
        self._first_step = step
        self._first_s = spent_s
        self._started = time.monotonic() - spent_s
        self._last_s: dict[str, float] = {}

    @property
    def spent_s(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._started

    @property
    def left_s(self) -> float:
        """Seconds that are left, by the pace since the start or resume."""
        pace_s = (self.spent_s - self._first_s) / max(1, self.step - self._first_step)
        return max(0, self.steps - self.step) * pace_s

    @property
    def progress(self) -> float:
        """Share of the stage that is done, at most 1."""
        return min(1.0, self.step / max(1, self.steps))

    @property
    def is_done(self) -> bool:
        """Whether the stage has run its course."""
        return self.step >= self.steps

    @property
    def is_over(self) -> bool:
        """Whether to end: the stage has run its course, or a signal has asked for it."""
        return self.is_done or is_stopped()

    def is_due(self, what: str, every_s: float) -> bool:
        """True once in a period, for the first time when one is over."""
        is_due = self.spent_s - self._last_s.get(what, self._first_s) >= every_s
        if is_due:
            self._last_s[what] = self.spent_s
        return is_due


class StageRun:
    """One run of a stage: its clock, its reports and its checkpoint, with which it begins if the stage goes on."""

    def __init__(self, stage: Stage, model: nn.Module, optimizers: Optimizers) -> None:
        self.stage = stage
        self._model = model
        self._optimizers = optimizers
        self.clock = RunClock(stage.steps)
        if stage.goes_on:
            state = load_checkpoint(stage.path)
            model.load_state_dict(state["model"])
            optimizers.load_state_dict(state["optimizers"])
            self.clock = RunClock(stage.steps, step=state["step"], spent_s=state["spent_s"])

    def save(self, **more: Any) -> None:
        """The checkpoint of this moment is written."""
        state = {
            "model": self._model.state_dict(),
            "optimizers": self._optimizers.state_dict(),
            "step": self.clock.step,
            "spent_s": self.clock.spent_s,
            "seed": self.stage.seed,
            "is_done": self.clock.is_done,
        }
        save_checkpoint(self.stage.path, state | more)

    def report(self, figures: dict[str, float], *, is_heldout: bool = False) -> None:
        """The stage's listener knows the figures; those of steps not more often than once in a second."""
        if is_heldout or self.clock.is_done or self.clock.is_due("report", REPORT_EVERY_S):
            event = Event(
                stage=self.stage.name,
                step=self.clock.step,
                steps=self.clock.steps,
                spent_s=self.clock.spent_s,
                left_s=self.clock.left_s,
                figures=figures,
                is_heldout=is_heldout,
            )
            self.stage.listener(event)

    @property
    def is_save_due(self) -> bool:
        """True every few minutes."""
        return self.clock.is_due("save", SAVE_EVERY_S)

    @property
    def is_validation_due(self) -> bool:
        """True every quarter of an hour."""
        return self.clock.is_due("validation", VALIDATE_EVERY_S)


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
