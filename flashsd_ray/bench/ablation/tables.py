"""The ablation as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from flashsd_ray.bench.ablation.summary import PairResult, RowResult
from flashsd_ray.bench.decode.summary import PLAIN
from flashsd_ray.bench.tables import markdown

COLUMNS = (
    *("frames", "row", "what it is", "clips", "tau [95 %]", "decode against plain [95 %]", "ms of drafting a round"),
    *("ms of a round", "stands in slot 1, 2, ..", "parameters", "steps", "identical to plain"),
)


def table_of(results: Sequence[RowResult]) -> str:
    """A line for each row."""
    return markdown(COLUMNS, map(_cells, results))


def pair_table_of(pairs: Sequence[PairResult]) -> str:
    """A line for each pair of rows that differ in one thing."""
    columns = ("frames", "what differs", "row", "against", "tau, times [95 %]", "certain")
    return markdown(
        columns,
        (
            [pair.frames, pair.text, pair.better, pair.than, _three(pair.tau), "yes" if pair.is_certain else "no"]
            for pair in pairs
        ),
    )


def _three(ratio: object) -> str:
    value, low, high = (getattr(ratio, name) for name in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _cells(result: RowResult) -> list[object]:
    decoded, made = result.decoded, [run.described.get("provenance", {}) for run in result.runs]
    tau, rounds = decoded.tau, decoded.round_ms
    sizes = {training.get("num_parameters") for training in made if training}
    return [
        result.frames,
        result.row.name,
        result.row.text,
        decoded.num_clips,
        None if tau is None else f"{tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]",
        decoded.against.get(PLAIN),
        f"{rounds['draft']:.2f}" if rounds else None,
        f"{sum(rounds.values()):.2f}" if rounds else None,
        " ".join(f"{share:.2f}" for share in decoded.survival),
        " ".join(f"{size:,}" for size in sorted(size for size in sizes if size)),
        " ".join(str(training["steps"]) for training in made if training),
        f"{decoded.num_compared - len(decoded.diverged)} of {decoded.num_compared}" if decoded.num_compared else None,
    ]
