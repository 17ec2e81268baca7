"""Plain decoding against FLASH decoding of one request: same weights, same kernels, timed in turn.

The plain side runs without a drafter, not with one that is told to be silent: the target then keeps no hidden states
for it, which would make the baseline a few percent slower than it has to be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flashsd_ray.bench.intervals import Ratio, ratio_of_totals
from flashsd_ray.speculation.stats import SpeculationStats

if TYPE_CHECKING:
    from rich.table import Table

    from flashsd_ray.engine.answers import Caption
    from flashsd_ray.engine.local import Engine
    from flashsd_ray.types import CaptionRequest


@dataclass(frozen=True, slots=True)
class Side:
    """One way of decoding: totals over its repeats."""

    stats: SpeculationStats

    @property
    def tokens_per_s(self) -> float:
        """Of decoding: the first token belongs to the prefill and is not counted."""
        decoded = self.stats.num_new_tokens - self.stats.num_prefills
        return decoded / self.stats.seconds["decode"] if decoded else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"tokens_per_s": self.tokens_per_s, "tau": self.stats.tau, "rounds_per_answer": self.rounds}

    @property
    def rounds(self) -> float:
        """Verify passes of one answer."""
        return self.stats.rounds / max(1, self.stats.num_prefills)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What speculation brought for one request."""

    plain: Side
    flash: Side
    speedup: Ratio | None  # None: there was nothing to decode after the first token
    first_difference: int | None  # index of the first token that differs; None: the outputs are identical
    repeats: int
    must_be_identical: bool  # but for rounding; the rejection rule only promises the same distribution

    @property
    def is_identical(self) -> bool:
        """Whether both ways gave the same tokens, in every repeat."""
        return self.first_difference is None

    def verdict(self) -> str:
        """The answer to "output identical"."""
        return "yes" if self.is_identical else f"NO (first difference at token {self.first_difference})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "plain": self.plain.as_dict(),
            "flash": self.flash.as_dict(),
            "speedup": None if self.speedup is None else self.speedup.as_dict(),
            "output_identical": self.is_identical,
            "first_difference": self.first_difference,
            "repeats": self.repeats,
        }


def compare(
    engine: Engine,
    request: CaptionRequest,
    repeats: int,
    says: Callable[[str], None] = lambda text: None,  # told how far it is
) -> Comparison:
    """Both ways are warmed up once, then timed ``repeats`` times, each going first in turn.

    Raises:
        FlashSDError: the request cannot be answered.
    """
    plain_engine = without_drafter(engine, engine.caption(request).num_prompt_tokens + request.sampling.max_new_tokens)
    times: dict[str, list[float]] = {"plain": [], "flash": []}
    totals = {"plain": SpeculationStats(), "flash": SpeculationStats()}
    differences: list[int | None] = []
    for repeat in range(repeats + 1):
        says(f"comparing: repeat {repeat} of {repeats}" if repeat else "comparing: warming up")
        answers: dict[str, Caption] = {}
        for side in ("plain", "flash") if repeat % 2 else ("flash", "plain"):
            answers[side] = (plain_engine if side == "plain" else engine).caption(request)
        differences.append(first_difference(answers["plain"].token_ids, answers["flash"].token_ids))
        if repeat:
            for side, caption in answers.items():
                totals[side] += caption.stats
                times[side].append(_seconds_per_token(caption))
    sampling, rule = request.sampling, engine.config.speculation.acceptance
    return Comparison(
        plain=Side(totals["plain"]),
        flash=Side(totals["flash"]),
        speedup=ratio_of_totals(times["plain"], times["flash"]) if all(times["plain"] + times["flash"]) else None,
        first_difference=min((index for index in differences if index is not None), default=None),
        repeats=repeats,
        must_be_identical=rule == "coupled" or sampling.is_greedy,
    )


def without_drafter(
    engine: Engine,
    rows: int,  # that its requests need
) -> Engine:
    """The same target, decoding plainly, with a cache of its own that holds one request."""
    from flashsd_ray.engine.local import Engine

    config = replace(
        engine.config,
        speculation=replace(engine.config.speculation, drafter="none", compressor="auto"),
        scheduling=replace(engine.config.scheduling, cache_rows=rows, max_running=1),
    )
    return Engine.around(engine.target, config)


def first_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    """Where two sequences part, or None when they are equal; where one ends early, there."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return None if len(one) == len(other) else min(len(one), len(other))


def _seconds_per_token(caption: Caption) -> float:
    decoded = caption.stats.num_new_tokens - caption.stats.num_prefills
    return caption.stats.seconds["decode"] / decoded if decoded else 0.0


def table(result: Comparison, *, title: str, drafter: str) -> Table:
    """The comparison for people."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="",
    )
    for name in ("", "tokens/s", "tau", "rounds", "speed-up"):
        shown.add_column(name, justify="left" if not name else "right")
    speedup = "-" if result.speedup is None else str(result.speedup)
    plain, flash = result.plain, result.flash
    shown.add_row(
        "plain decoding", f"{plain.tokens_per_s:.0f}", f"{plain.stats.tau:.2f}", f"{plain.rounds:.0f}", "1.00x"
    )
    shown.add_row(
        f"FLASH ({drafter})", f"{flash.tokens_per_s:.0f}", f"{flash.stats.tau:.2f}", f"{flash.rounds:.0f}", speedup
    )
    verdict = Text.assemble(
        "output identical: ", (result.verdict(), "bold green" if result.is_identical else "bold red")
    )
    shown.caption = verdict
    return shown


def explanation(result: Comparison, dtype: str) -> str:
    """Why outputs may differ here; empty when they do not."""
    if result.is_identical:
        return ""
    if not result.must_be_identical:
        return (
            "the rejection rule keeps the distribution, not the text; --set speculation.acceptance=coupled keeps both"
        )
    if dtype != "float32":
        return (
            f"in {dtype} two tokens can be as good as equally likely; --dtype float32 shows that nothing else differs"
        )
    return "in float32 this is a bug: please report it with the clip and the command"
