"""From readings to lessons: which anchors of which answers a step learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flashsd_ray.models.drafters.layout import PromptLayout, lay_out
from flashsd_ray.models.drafters.lesson import Lesson
from flashsd_ray.models.drafters.network import DrafterNetwork
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

    def __init__(self, readings: Sequence[Reading], network: DrafterNetwork, seed: int) -> None:
        self.readings = readings
        self.generator = torch.Generator().manual_seed(seed)
        self._network = network
        self._weights = torch.tensor([float(reading.num_anchors) for reading in readings])
        self._layouts: dict[int, PromptLayout] = {}

    def draw(self, num_readings: int, num_anchors: int) -> Batch:
        """A random batch."""
        chosen = torch.multinomial(self._weights, num_readings, replacement=True, generator=self.generator).tolist()
        anchors = []
        for index in chosen:
            reading = self.readings[index]
            order = torch.randperm(reading.num_anchors, generator=self.generator)
            anchors.append(order.repeat(-(-num_anchors // len(order)))[:num_anchors] + reading.num_prompt_tokens)
        return self.batch(chosen, torch.stack(anchors))

    def batch(self, chosen: Sequence[int], anchors: Tensor) -> Batch:
        """The batch of these readings and these anchors [N, A]."""
        readings = [self.readings[index] for index in chosen]
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
        for row, (index, reading) in enumerate(zip(chosen, readings, strict=True)):
            layout = self._layout(index)
            following = token_ids[row, 1 : lengths[row] + 1]
            embeddings = None if reading.embeddings is None else reading.embeddings.to(fused[row])
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

    def _layout(self, index: int) -> PromptLayout:
        if index not in self._layouts:
            reading, network = self.readings[index], self._network
            layout = lay_out(len(reading.taps), reading.segments, network.compressor, network.view.device)
            self._layouts[index] = layout
        return self._layouts[index]


def _finals(reading: Reading, anchors: Tensor, slots: int) -> Tensor:  # [A] -> [A, K, D]
    rows = anchors[:, None] - reading.num_prompt_tokens + torch.arange(slots)
    return reading.finals[rows.clamp(max=len(reading.finals) - 1)]
