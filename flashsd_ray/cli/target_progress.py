"""What a person sees of the training of a target: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashsd_ray.cli.live_bar import LiveBar
from flashsd_ray.cli.train_progress import LINE_EVERY_S, time_left
from flashsd_ray.training.drafter.events import Pace

if TYPE_CHECKING:
    from flashsd_ray.training.target.settings import Event

ON_INTERRUPT = "interrupted; the same command with --resume goes on"


class TargetProgress(LiveBar):
    """Listens to the stages and writes to standard error."""

    def __init__(self) -> None:
        super().__init__(on_interrupt=ON_INTERRUPT)
        self._pace = Pace(LINE_EVERY_S)

    def __call__(self, event: Event) -> None:
        """The event is shown."""
        measured = ", ".join(f"{name} {value:.3f}" for name, value in event.figures.items())
        where = f"step {event.step} of {event.steps}"
        if event.is_heldout:
            self._print(f"{event.stage}: {where}, on held-out clips {measured}")
            return
        note = f"{where}, {measured}{time_left(event.left_s)}"
        if self._bar is not None:
            self._update(event.stage, event.steps, event.step, note)
        elif event.step == event.steps or self._pace.is_due():
            self._print(f"{event.stage}: {note}")

    def says_how_to_go_on(self) -> None:
        """Somebody who has ended it early knows what to do next."""
        self._print(ON_INTERRUPT)
