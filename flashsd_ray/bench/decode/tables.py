"""The decode bench as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

from flashsd_ray.bench.decode.divergence import Divergence
from flashsd_ray.bench.decode.summary import PLAIN, Row
from flashsd_ray.bench.tables import markdown

COLUMNS = (
    *("temperature", "batch", "contender", "clips", "tokens/s", "against plain [95 %]", "against generate [95 %]"),
    *("tau [95 %]", "stands in slot 1, 2, ..", "diverged from plain", "largest gap"),
)


def table_of(rows: Sequence[Row]) -> str:
    """A line for each contender of each cell."""
    return markdown(COLUMNS, map(_cells, rows))


def _cells(row: Row) -> list[object]:
    tau = row.tau
    return [
        f"{row.cell.temperature:g}",
        row.cell.batch_size,
        row.contender,
        row.num_clips,
        f"{row.tokens_per_s:.0f}",
        row.against.get(PLAIN),
        row.against.get("generate"),
        None if tau is None else f"{tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]",
        " ".join(f"{share:.2f}" for share in row.survival),
        f"{len(row.diverged)} of {row.num_compared}" if row.num_compared else None,
        _gap(row.diverged),
    ]


def _gap(diverged: Sequence[Divergence]) -> str | None:
    """How far apart, in float32, the two most probable tokens were where an answer parted, at most."""
    gaps = [one.top_gap for one in diverged if one.top_gap is not None]
    return f"{max(gaps):.3f}" if gaps else None
