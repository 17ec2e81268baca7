"""From turns to figures: one row for each temperature, batch size and contender."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flashsd_ray.bench.decode.contenders import Outcome
from flashsd_ray.bench.decode.divergence import Divergence, divergences
from flashsd_ray.bench.decode.measuring import Measured, of_cell
from flashsd_ray.bench.decode.plan import Cell
from flashsd_ray.bench.intervals import Ratio, median_ratio, rate_ratio, ratio_of_totals

PLAIN, PLAIN_WIDE, GENERATE = "plain", "plain-wide", "generate"
PLAINS = frozenset({PLAIN, PLAIN_WIDE})
FOREIGN = frozenset({GENERATE, "prompt-lookup", "assisted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one contender did in one cell."""

    cell: Cell
    contender: str
    num_clips: int  # different ones
    num_answers: int
    tokens_per_s: float  # decode only, of all requests together
    tau: Ratio | None  # tokens per verify pass; the interval is over batches
    survival: tuple[float, ...]  # [i]: share of rounds in which the first i + 1 drafts stood
    drafted_per_round: float
    against: Mapping[str, Ratio]  # reference -> how many times its tokens per second; plain: the faster one of the cell
    median_against: Mapping[str, float]  # the median batch instead of totals
    round_ms: Mapping[str, float]  # of a round of the batch: draft, verify, other
    diverged: tuple[Divergence, ...]  # from plain decoding, one for each clip
    num_compared: int  # clips that plain decoding answered as well

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "temperature": self.cell.temperature,
            "batch_size": self.cell.batch_size,
            "contender": self.contender,
            "num_clips": self.num_clips,
            "num_answers": self.num_answers,
            "tokens_per_s": self.tokens_per_s,
            "tau": None if self.tau is None else self.tau.as_dict(),
            "survival": list(self.survival),
            "drafted_per_round": self.drafted_per_round,
            "against": {name: ratio.as_dict() for name, ratio in self.against.items()},
            "median_against": dict(self.median_against),
            "round_ms": dict(self.round_ms),
            "num_compared": self.num_compared,
            "num_diverged": len(self.diverged),
            "share_diverged": len(self.diverged) / self.num_compared if self.num_compared else None,
            "diverged": [one.as_dict() for one in self.diverged],
        }


def rows_of(measured: Sequence[Measured]) -> list[Row]:
    """Every contender of every cell."""
    rows = []
    for cell in sorted({one.turn.cell for one in measured}):
        turns = of_cell(measured, cell)
        references = {PLAIN: _faster_plain(turns), GENERATE: GENERATE}
        rows += [_row(cell, name, turns, references) for name in _names(turns)]
    return rows


def _faster_plain(measured: Sequence[Measured]) -> str:
    """Plain decoding as whoever wants no drafts would set it up for the cell."""
    known = [name for name in _names(measured) if name in PLAINS]
    return max(known, key=lambda name: _rate([one.outcomes[name] for one in measured]), default=PLAIN)


def _rate(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.num_tokens for outcome in outcomes) / max(1e-9, sum(outcome.seconds for outcome in outcomes))


def _names(measured: Iterable[Measured]) -> list[str]:
    """Plain decoding first, then by name of appearance."""
    names = dict.fromkeys(name for one in measured for name in sorted(one.outcomes))
    return sorted(names, key=lambda name: name != PLAIN)


def _row(cell: Cell, name: str, measured: Sequence[Measured], references: Mapping[str, str]) -> Row:
    mine = [one.outcomes[name] for one in measured if name in one.outcomes]
    rounds = sum(outcome.rounds for outcome in mine)
    answers = _answers(mine)
    plain = _answers([one.outcomes[PLAIN] for one in measured if PLAIN in one.outcomes])
    against = {label: _pairs(measured, who, name) for label, who in references.items() if who != name}
    # Another library draws other tokens: only greedy answers can be held against each other.
    is_comparable = name != PLAIN and (not cell.temperature or name not in FOREIGN)
    return Row(
        cell=cell,
        contender=name,
        num_clips=len(answers),
        num_answers=sum(len(outcome.token_ids) for outcome in mine),
        tokens_per_s=_rate(mine),
        tau=_tau(mine) if rounds else None,
        survival=tuple(count / rounds for count in _accepted(mine)) if rounds else (),
        drafted_per_round=sum(outcome.drafts for outcome in mine) / max(1, rounds),
        against={reference: rate_ratio(*pairs) for reference, pairs in against.items() if pairs[0]},
        median_against={reference: median_ratio(*pairs) for reference, pairs in against.items() if pairs[0]},
        round_ms=_round_ms(mine),
        diverged=tuple(divergences(plain, answers)) if is_comparable else (),
        num_compared=len(plain.keys() & answers.keys()) if is_comparable else 0,
    )


def _pairs(
    measured: Sequence[Measured], reference: str, name: str
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Tokens and seconds of both in the turns that both took part in."""
    both = [one.outcomes for one in measured if reference in one.outcomes and name in one.outcomes]
    counted = [outcomes for outcomes in both if outcomes[reference].num_tokens and outcomes[name].num_tokens]
    return _work([outcomes[reference] for outcomes in counted]), _work([outcomes[name] for outcomes in counted])


def _work(outcomes: Sequence[Outcome]) -> list[tuple[float, float]]:
    return [(outcome.num_tokens, outcome.seconds) for outcome in outcomes]


def _tau(outcomes: Sequence[Outcome]) -> Ratio:
    return ratio_of_totals([outcome.num_tokens for outcome in outcomes], [outcome.rounds for outcome in outcomes])


def _accepted(outcomes: Sequence[Outcome]) -> list[int]:
    slots = max((len(outcome.accepted_per_slot) for outcome in outcomes), default=0)
    return [
        sum(outcome.accepted_per_slot[slot] for outcome in outcomes if slot < len(outcome.accepted_per_slot))
        for slot in range(slots)
    ]


def _answers(outcomes: Iterable[Outcome]) -> dict[str, tuple[int, ...]]:
    """The first answer to each clip."""
    found: dict[str, tuple[int, ...]] = {}
    for outcome in outcomes:
        for digest, token_ids in outcome.token_ids.items():
            found.setdefault(digest, tuple(token_ids))
    return found


def _round_ms(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Milliseconds of a round of the batch, by what they were spent on."""
    rounds = sum(outcome.batch_rounds for outcome in outcomes)
    if not rounds:
        return {}
    spent = {stage: sum(outcome.stage_s.get(stage, 0.0) for outcome in outcomes) for stage in ("draft", "verify")}
    spent["other"] = sum(outcome.seconds for outcome in outcomes) - sum(spent.values())
    return {stage: 1000.0 * seconds / rounds for stage, seconds in spent.items()}
