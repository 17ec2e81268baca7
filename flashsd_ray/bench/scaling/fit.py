"""From loads whose work was counted to what each piece of work costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

from flashsd_ray.bench.scaling.costs import Costs
from flashsd_ray.bench.scaling.kernel import slowness

# What the processor time of each part is explained by: names of costs, and of the counts that they are multiplied with.
TERMS: Mapping[str, Mapping[str, str]] = {
    "lane": {"round_s": "rounds", "row_s": "rows", "prompt_row_s": "prompt_rows", "place_s": "requests"},
    "lane beside": {"lane_beside_request_s": "requests", "lane_beside_feed_s": "rounds"},
    "encoder": {"encode_s": "requests", "frame_s": "frames"},
    "encoder beside": {"encoder_beside_s": "requests"},
    "edge": {"edge_request_s": "requests", "edge_feed_s": "rounds", "edge_chunk_s": "chunks"},
    "edge beside": {"edge_beside_request_s": "requests", "edge_beside_feed_s": "rounds"},
    "client": {"client_request_s": "requests", "client_chunk_s": "chunks"},
    "ray": {"ray_request_s": "requests", "ray_feed_s": "rounds"},
}
DECODING = "edge beside"  # where pictures are decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What all parts share where they are measured."""

    num_cores: int = 1
    slowdown: float = 1.0  # of a task when all cores are busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a load came to, and what it used."""

    users: int
    lanes: int
    new_tokens: int
    seconds: float
    answer_s: float  # mean time of a request
    requests: int
    tokens: int
    rounds: int
    rows: int  # verified, anchors included
    prompt_rows: int
    chunks: int
    frames: int
    survival: tuple[float, ...] = ()
    cpu_s: Mapping[str, float] = field(default_factory=dict)  # of each part
    rounds_s: float = 0.0  # that lanes spent in rounds, by the clock on the wall
    others_cores: float = 0.0  # that processes which are none of ours kept busy meanwhile

    def crowding(self, machine: Machine) -> float:
        """How many times longer everything took because other cores were busy too."""
        return slowness(
            sum(self.cpu_s.values()) / self.seconds + self.others_cores, machine.num_cores, machine.slowdown
        )

    @property
    def tokens_per_s(self) -> float:
        """Over the whole load."""
        return self.tokens / self.seconds

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"tokens_per_s": self.tokens_per_s}


def explained(costs: Costs, load: Counted, idle_s: Mapping[str, float], machine: Machine) -> dict[str, float]:
    """Of each part: processor time that the costs expect of the load, as a share of what it used.

    It says whether the costs hold for a load that they were not fitted to, also where the machine had other things to do.
    """
    shares = {}
    for part, terms in TERMS.items():
        expected = sum(getattr(costs, cost) * getattr(load, count) for cost, count in terms.items())
        expected += idle_s[part] * load.seconds + (costs.decode_s * load.requests if part == DECODING else 0.0)
        shares[part] = expected * load.crowding(machine) / load.cpu_s[part] if load.cpu_s[part] else 1.0
    return shares


def fitted(
    loads: Sequence[Counted],
    idle_s: Mapping[str, float],  # processor time of each part in a second without requests
    known: Costs,  # what was measured by itself: everything that TERMS does not name
    machine: Machine,
) -> Costs:
    """The costs that explain the processor time of the loads best, none of them negative.

    Costs are those of a task that is alone on the machine: what a load used is less by its crowding. Every load counts the
    same, however long it took. Decoding of pictures is part of the edge's time and known already.

    Raises:
        ValueError: there are no loads.
    """
    if not loads:
        raise ValueError("there are no loads to fit")
    found: dict[str, float] = {}
    for part, terms in TERMS.items():
        alone = np.array([one.cpu_s[part] / one.crowding(machine) for one in loads])
        used = np.maximum(alone - np.array([idle_s[part] * one.seconds for one in loads]), 0.0)
        if part == DECODING:
            used -= np.array([known.decode_s * one.requests for one in loads])
        matrix = np.array([[float(getattr(one, count)) for count in terms.values()] for one in loads])
        # A count that moves with another one says nothing of its own: the first of them bears the cost of both.
        kept = _independent(matrix)
        weights = 1.0 / np.maximum(alone, 1e-3)
        solution, _ = nnls(matrix[:, kept] * weights[:, None], np.maximum(used, 0.0) * weights)
        names = [list(terms)[index] for index in kept]
        found |= dict(zip(names, map(float, solution), strict=True))
    return Costs(**(known.as_dict() | found))


def _independent(
    matrix: np.ndarray,  # [loads, counts]
) -> list[int]:
    """The columns that no columns before them explain."""
    scaled = matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    kept: list[int] = []
    for index in range(matrix.shape[1]):
        tried = scaled[:, [*kept, index]]
        if np.linalg.matrix_rank(tried, tol=1e-6) == len(kept) + 1:
            kept.append(index)
    return kept
