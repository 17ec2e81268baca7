"""A time-line of a run: answers as they end, faults, and how long each was felt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from flashsd_ray.bench.chaos.run import Chaos

BIN_S = 5.0


def draw(chaos: Chaos, path: Path) -> None:
    """The time-line is a PNG or SVG file."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    edges = np.arange(0.0, chaos.seconds + BIN_S, BIN_S)
    for verdict in sorted(chaos.verdicts):
        ends = [fate.end_s for fate in chaos.fates if fate.verdict == verdict]
        counts, _ = np.histogram(ends, edges)
        above.step(edges[:-1], counts / BIN_S, where="post", label=f"{verdict} ({len(ends)})")
    above.set(ylabel="requests ended a second", ylim=(0, None))
    above.legend(fontsize="small")
    kinds = sorted({one.fault.kind for one in chaos.felt}, reverse=True)
    for one in chaos.felt:
        row, length_s = kinds.index(one.fault.kind), one.recovery_s
        below.plot([one.began_s], [row], marker="x", color="black")
        below.barh(row, length_s or chaos.seconds - one.began_s, left=one.began_s, height=0.5, alpha=0.5)
    below.set(xlabel="seconds", yticks=range(len(kinds)), yticklabels=kinds)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
