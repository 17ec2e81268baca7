"""From readings to lessons: which anchors of which answers a step learns from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from flashsd_ray.models.drafters.layout import PromptLayout, lay_out
from flashsd_ray.models.drafters.lesson import Lesson
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.training.drafter.pool import ReadingPool
from flashsd_ray.training.drafter.readings import Reading


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A lesson and what the target said behind every anchor."""

    lesson: Lesson
    finals: Tensor  # [N, A, K, D], what the target's head read at each slot
    token_ids: Tensor  # [N, A, K] int64, true tokens
    is_real: Tensor  # [N, A, K] bool, whether the answer reaches so far


class Lessons:
    """Draws batches of readings and anchors; long answers come as often as they have anchors."""

    def __init__(self, pool: ReadingPool, network: DrafterNetwork, seed: int = 0, rank: int = 0) -> None:
        self.pool = pool
        self._network = network
        self._seed = f"{seed}:{rank}"
        self._weights = (-1, torch.empty(0))  # of which version of the pool
        self._layouts: WeakKeyDictionary[Reading, PromptLayout] = WeakKeyDictionary()

    def draw(self, step: int, num_readings: int, num_anchors: int) -> Batch:
        """The batch of a step: the same for the same pool, seed and step, whatever was drawn before."""
        generator = torch.Generator().manual_seed(random.Random(f"{self._seed}:{step}").getrandbits(63))
        chosen = torch.multinomial(self._anchor_counts(), num_readings, replacement=True, generator=generator)
        readings = [self.pool.readings[index] for index in chosen.tolist()]
        anchors = []
        for reading in readings:
            order = torch.randperm(reading.num_anchors, generator=generator)
            anchors.append(order.repeat(-(-num_anchors // len(order)))[:num_anchors] + reading.num_prompt_tokens)
        return self.batch(readings, torch.stack(anchors))

    def _anchor_counts(self) -> Tensor:
        version, counts = self._weights
        if version != self.pool.version:
            counts = torch.tensor([float(reading.num_anchors) for reading in self.pool.readings])
            self._weights = (self.pool.version, counts)
        return counts

    def batch(
        self,
        readings: Sequence[Reading],
        anchors: Tensor,  # [N, A] int64, positions
    ) -> Batch:
        """The batch of these readings and these anchors."""
        network, device = self._network, self._network.view.device
        slots = network.config.draft_length
        lengths = [len(reading.taps) for reading in readings]
        taps = torch.cat([reading.taps for reading in readings]).to(device)
        if not torch.is_autocast_enabled(device.type):
            taps = taps.float()
        fused = torch.split(network.fuse(taps), lengths)
        longest = max(lengths) + 1
        token_ids = torch.zeros(len(readings), longest, dtype=torch.int64)
        for row, reading in enumerate(readings):
            token_ids[row, : len(reading.token_ids)] = torch.tensor(reading.token_ids)
        token_ids = token_ids.to(device)
        contexts, positions = [], []
        for row, reading in enumerate(readings):
            layout = self._layout(reading)
            following = token_ids[row, 1 : lengths[row] + 1]
            # A copy: what was read in inference mode cannot be learnt from.
            embeddings = None if reading.embeddings is None else reading.embeddings.to(fused[row], copy=True)
            contexts.append(network.enter_prompt(fused[row], following, layout, embeddings))
            positions.append(layout.positions)
        width = max(len(rows) for rows in contexts)
        lesson = Lesson(
            context=torch.stack([F.pad(rows, (0, 0, 0, width - len(rows))) for rows in contexts]),
            positions=torch.stack([F.pad(rows, (0, width - len(rows)), value=longest) for rows in positions]),
            token_ids=token_ids,
            anchors=anchors.to(device),
        )
        ends = torch.tensor([len(reading.token_ids) for reading in readings], device=device)
        places = lesson.anchors[..., None] + torch.arange(1, slots + 1, device=device)
        return Batch(
            lesson=lesson,
            finals=torch.stack([_finals(*pair, slots) for pair in zip(readings, anchors, strict=True)]).to(device),
            token_ids=lesson.tokens_from(1, slots),
            is_real=places < ends[:, None, None],
        )

    def _layout(self, reading: Reading) -> PromptLayout:
        if reading not in self._layouts:
            view, compressor = self._network.view, self._network.compressor
            self._layouts[reading] = lay_out(len(reading.taps), reading.segments, compressor, view.device)
        return self._layouts[reading]


def _finals(reading: Reading, anchors: Tensor, slots: int) -> Tensor:  # [A] -> [A, K, D]
    rows = anchors[:, None] - reading.num_prompt_tokens + torch.arange(slots)
    return reading.finals[rows.clamp(max=len(reading.finals) - 1)]
