"""Endless batches of clips, rendered by one background process; nothing is stored."""

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from flashsd_ray.training.target.architecture import IMAGE_SIZE
from flashsd_ray.training.target.labels import PatchLabels, label_patches
from flashsd_ray.training.town.augment import augment
from flashsd_ray.training.town.render import render_clip
from flashsd_ray.training.town.scene import Scene, Split
from flashsd_ray.training.town.staging import sample_scene

LARGE_RENDER_SHARE = 0.3  # of clips that are rendered larger, then resized as a processor would


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """A batch of clips with labels."""

    pixels: torch.Tensor  # [B, F, 3, S, S] uint8
    objects: torch.Tensor  # [B, F, P, heads] int64
    scene: torch.Tensor  # [B, scene heads] int64
    scenes: tuple[Scene, ...]


@dataclass(frozen=True, kw_only=True)
class ClipStream:
    """Which clips to render."""

    split: Split
    first_seed: int
    batch_size: int
    frame_counts: tuple[int, ...]  # one is drawn per batch
    is_augmented: bool = True


def render_batch(stream: ClipStream, batch_index: int) -> ClipBatch:
    """The batch of this index: a pure function of its arguments."""
    chooser = random.Random(f"batch:{stream.split}:{stream.first_seed}:{batch_index}")
    frame_count = chooser.choice(stream.frame_counts)
    first = stream.first_seed + batch_index * stream.batch_size
    rows = [
        _render(stream, sample_scene(seed, stream.split), frame_count)
        for seed in range(first, first + stream.batch_size)
    ]
    frames = torch.from_numpy(np.stack([row[0] for row in rows]))
    return ClipBatch(
        pixels=frames.permute(0, 1, 4, 2, 3).contiguous(),
        objects=torch.from_numpy(np.stack([row[1].objects for row in rows])),
        scene=torch.from_numpy(np.stack([row[1].scene for row in rows])),
        scenes=tuple(row[2] for row in rows),
    )


def _render(source: ClipStream, scene: Scene, frame_count: int) -> tuple[np.ndarray, PatchLabels, Scene]:
    stream = random.Random(f"augment:{scene.split}:{scene.seed}")
    offset = stream.random() if frame_count == 1 else stream.uniform(0.0, 0.5)
    last = 0.0 if frame_count == 1 else 1.0 - stream.uniform(0.0, 0.5) / frame_count
    begin = offset if frame_count == 1 else offset / frame_count
    step = (last - begin) / max(1, frame_count - 1)
    moments = tuple(begin + step * index for index in range(frame_count))
    size_px = IMAGE_SIZE
    if source.is_augmented and stream.random() < LARGE_RENDER_SHARE:
        size_px = stream.choice((144, 192, 224))
    clip = render_clip(scene, moments, size_px)
    frames = augment(clip.frames, stream, IMAGE_SIZE) if source.is_augmented else clip.frames
    return frames, label_patches(clip), scene


class _Batches(IterableDataset[ClipBatch]):
    def __init__(self, stream: ClipStream, first_batch: int) -> None:
        self._stream = stream
        self._first_batch = first_batch

    def __iter__(self) -> Iterator[ClipBatch]:
        for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the trainer stops this process itself
            signal.signal(number, signal.SIG_IGN)
        index = self._first_batch
        while True:
            yield render_batch(self._stream, index)
            index += 1


def stream_batches(stream: ClipStream, first_batch: int = 0) -> Iterator[ClipBatch]:
    """Batches from `first_batch` on, in order, rendered ahead by one background process."""
    loader = DataLoader(_Batches(stream, first_batch), batch_size=None, num_workers=1, prefetch_factor=4)
    return iter(loader)


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    """The pixels as the processor gives them: 0..255 becomes -1..1 in float32."""
    return pixels.float() / 127.5 - 1.0
