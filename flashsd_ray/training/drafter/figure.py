"""A picture of a training, where matplotlib happens to be installed."""

from __future__ import annotations

import importlib
from pathlib import Path

from flashsd_ray.training.drafter.events import Judged, Learnt, read_event


def draw(journal: Path, path: Path) -> bool:
    """Loss over steps and held-out acceptance by slot are drawn; returns False where nothing can draw or be drawn."""
    try:
        figure = importlib.import_module("matplotlib.figure").Figure(figsize=(9, 3.2), layout="constrained")
    except ImportError:
        return False
    if not journal.exists():
        return False
    with journal.open(encoding="utf-8") as lines:
        events = [read_event(line) for line in lines]
    learnt = [event for event in events if isinstance(event, Learnt)]
    judged = [event for event in events if isinstance(event, Judged)]
    left, right = figure.subplots(1, 2)
    left.plot([event.step for event in learnt], [event.loss for event in learnt], linewidth=0.8)
    left.set(xlabel="step", ylabel="loss")
    for event in judged:
        slots = event.quality["greedy_slots" if event.quality["num_greedy"] else "sampled_slots"]
        shade = str(round(0.8 * (1.0 - event.progress), 2))  # the last one black
        right.plot(range(1, len(slots) + 1), slots, color=shade, label=f"step {event.step}")
    right.set(xlabel="slot", ylabel="stands, given those before", ylim=(0, 1))
    figure.savefig(path, dpi=120)
    return True
