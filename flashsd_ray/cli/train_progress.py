"""What a person sees of a training: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flashsd_ray.cli.live_bar import LiveBar
from flashsd_ray.cli.terminal import visible
from flashsd_ray.training.drafter.events import Asked, Event, Judged, Learnt, LeftOut, Pace, Read

if TYPE_CHECKING:
    from flashsd_ray.training.drafter.job import Job

LINE_EVERY_S = 15.0  # where there is no terminal
MIBIBYTE = 2**20


class Progress(LiveBar):
    """Listens to a training and writes to standard error."""

    def __init__(self) -> None:
        super().__init__(on_interrupt="interrupted; the same command with --resume goes on")
        self._pace = Pace(LINE_EVERY_S)
        self._quality: dict[str, Any] = {}
        self._num_left_out = 0

    def __call__(self, event: Event) -> None:
        """The event is shown."""
        if isinstance(event, LeftOut):
            self._num_left_out += 1
            self._print(visible(f"left out: {event.origin}: {event.reason}"))
        elif isinstance(event, Judged):
            self._quality = event.quality
            self._print(f"step {event.step}, {event.spent_s:.0f} s: {worth(event.quality)}")
        else:
            what, share, note = _shown(event)
            is_known = isinstance(event, Learnt) and self._quality.get("num_greedy")
            self._show(what, share, note + (f", held-out tau {self._quality['greedy_tau']:.2f}" if is_known else ""))

    def has_found(self, num_train: int, num_heldout: int) -> None:
        """The data was looked through."""
        self._print(f"{num_train} questions to learn from, {num_heldout} held out")

    def summary(self, job: Job) -> str:
        """What has come out, for standard output."""
        left_out = f" ({self._num_left_out} questions left out)" if self._num_left_out else ""
        if job.only_answers:
            return f"the answers are in {job.store}{left_out}"
        name = job.config.model.name
        return (
            f"{job.out}: {worth(self._quality)}{left_out}\n"
            f"  card   {job.out / 'README.md'}\n"
            f"  try    flashsd caption clip.mp4 --model {name} --drafter {job.out} --compare\n"
            f"  serve  flashsd serve --model {name} --drafter {job.out}"
        )

    def _show(self, what: str, share: float, note: str) -> None:
        if self._bar is not None:
            self._update(what, 1.0, share, note)
        elif share >= 1.0 or self._pace.is_due():
            self._print(f"{what}: {100 * share:.0f} %, {note}")


def worth(quality: dict[str, Any]) -> str:
    """How good the drafter is on held-out answers."""
    parts = []
    if quality.get("num_greedy"):
        slots = " ".join(f"{value:.2f}" for value in quality["greedy_slots"])
        parts.append(f"held-out greedy tau {quality['greedy_tau']:.2f}, slot by slot {slots}")
    if quality.get("num_sampled"):
        parts.append(f"sampled tau {quality['sampled_tau']:.2f}")
    return "; ".join(parts) or "nothing was held out"


def _shown(event: Asked | Read | Learnt) -> tuple[str, float, str]:
    """What is going on, how far it is, and more about it."""
    if isinstance(event, Asked):
        share = event.done / max(1, event.total)
        rate = event.tokens / max(event.seconds, 1e-9)
        left = _left(event.seconds, share)
        return "asking", share, f"{event.done} of {event.total} answers, {rate:.0f} tokens/s{left}"
    if isinstance(event, Read):
        size = f"{event.num_bytes / MIBIBYTE:.0f} MiB"
        return "reading", event.done / max(1, event.total), f"{event.done} of {event.total} answers, {size}"
    slots = " ".join(f"{value:.2f}" for value in event.slots)
    left = _left(event.spent_s, event.progress)
    note = f"step {event.step}, loss {event.loss:.3f}, overlap {event.overlap:.2f}, slots {slots}{left}"
    return "learning", event.progress, note


def _left(spent_s: float, share: float) -> str:
    """How much longer it will take at this pace."""
    return time_left(spent_s * (1.0 - share) / share) if 0.0 < share < 1.0 else ""


def time_left(seconds: float) -> str:
    """The end of a line that says how much longer it takes."""
    if seconds <= 0.0:
        return ""
    return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
