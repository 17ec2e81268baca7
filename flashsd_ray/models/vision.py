"""The vision tower of a target: pixels in, visual tokens out, the same bits for the same picture.

A product of matrices may round a row differently when the number of rows changes. Measured with the bundled target
(2 cores of an Intel Xeon with AMX, torch 2.13, one or two threads): in float32 no bit of a frame's features depends on
how many frames go through the tower together; in bfloat16 a frame alone, 2 to 5 frames, and 8 or 16 frames give three
different results (largest difference 0.06), while at a fixed number neither the frame's place, nor what stands in the
other places, nor the number of threads matters. So every image goes through in a forward of one shape that depends on
nothing but its own size; places that are left over hold zeros.

Milliseconds for one forward of the bundled target's tower, one thread:

    frames      1     2     4     8    16    32
    float32   4.3   6.2  10.2  19.2  34.7  65.2
    bfloat16  3.6   4.8   6.6  10.7  18.0  30.3

Four together cost a live stream of single frames 3 ms more than one alone, and clips get most of what there is to gain.
Where clips come in masses the number may be larger; within one number the same picture has the same features.
Large images fill the processor by themselves; padding would only cost them time.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from flashsd_ray.models.preprocessing import PIXELS, Modality, Pixels
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.types import VisualTokens

IMAGES_PER_FORWARD = 4
# The largest image that is padded, in values of its pixels. The CPU's is measured (above); a GPU is idle for longer.
LARGEST_PADDED = {"cpu": 2**16, "cuda": 2**20}
SAMPLES = 256  # of each weight, for the fingerprint
NOT_OF_VISION = ("text_config", "_name_or_path")  # of a model's configuration
# What the library's vision part takes where pictures are told apart by more than their grid.
TOGETHER: dict[Modality, tuple[str, ...]] = {
    "image": ("pixel_values", "image_sizes", "batch_num_images", "pixel_attention_mask"),
    "video": ("pixel_values_videos",),
}


@dataclass(frozen=True, slots=True, eq=False)
class LibraryOutput:
    """What the library's forward reads of the result of its own vision part."""

    pooler_output: Sequence[Tensor] | Tensor
    deepstack_features: Sequence[Sequence[Tensor]]  # of each layer, of each picture


class VisionTower:
    """Runs the vision tower and the projector of one target."""

    def __init__(self, target: PretrainedTarget, images_per_forward: int = 0) -> None:  # 0: IMAGES_PER_FORWARD
        self._target = target
        self._images_per_forward = images_per_forward or IMAGES_PER_FORWARD

    @cached_property
    def fingerprint(self) -> str:
        """Short digest of all that visual tokens depend on besides the picture: weights, preprocessing, arithmetic."""
        model, processor = self._target.model, self._target.processor
        parts = [getattr(processor, name, None) for name in ("image_processor", "video_processor")]
        described = {
            "model": {name: value for name, value in model.config.to_dict().items() if name not in NOT_OF_VISION},
            "processors": [part.to_dict() for part in parts if part is not None],
            "versions": [version(name) for name in ("torch", "transformers")],
            "arithmetic": [str(model.dtype), *_processor_kind(model.device), self._images_per_forward, LARGEST_PADDED],
        }
        digest = hashlib.blake2b(json.dumps(described, default=str, sort_keys=True).encode(), digest_size=16)
        for name, sample in self._weight_samples():
            digest.update(name.encode())
            digest.update(sample.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def key(self, *digests: str) -> str:
        """What visual tokens of this content, made by this tower, are called wherever they are kept."""
        content = digests[0] if len(digests) == 1 else hashlib.blake2b("+".join(digests).encode(), digest_size=16)
        return f"{self.fingerprint}:{content if isinstance(content, str) else content.hexdigest()}"

    @torch.inference_mode()
    def read(self, pictures: Mapping[str, Pixels]) -> dict[str, VisualTokens]:
        """The visual tokens of pictures that stand each for itself, under the names that the pictures have."""
        alike: defaultdict[tuple[Modality, torch.Size, tuple[int, ...]], list[str]] = defaultdict(list)
        for name, pixels in pictures.items():
            alike[pixels.modality, pixels.values.shape, pixels.grid].append(name)
        made: dict[str, VisualTokens] = {}
        for names in alike.values():
            size = self._forward_size(pictures[names[0]])
            for start in range(0, len(names), size):
                chosen = names[start : start + size]
                made |= zip(chosen, self._forward([pictures[name] for name in chosen], size), strict=True)
        return made

    @torch.inference_mode()
    def read_together(self, inputs: Mapping[str, Any], modality: Modality) -> VisualTokens:
        """The visual tokens of all pictures of one request, where they may depend on each other."""
        named = {name: inputs[name] for name in TOGETHER[modality] if name in inputs}
        pooled = self._library(modality)(**named, return_dict=True).pooler_output
        return VisualTokens(features=pooled.flatten(0, 1) if isinstance(pooled, Tensor) else torch.cat(list(pooled)))

    def given_back(self, modality: Modality, pictures: Sequence[VisualTokens]) -> LibraryOutput:
        """The same tokens as the library's forward takes them in place of pixels."""
        device = self._target.model.device
        features = [tokens.features.to(device) for tokens in pictures]
        stacks = modality == "video" and self._target.family.stacks_videos
        return LibraryOutput(
            torch.stack(features) if stacks else features,
            [
                [part.to(device) for part in layer]
                for layer in zip(*(tokens.deepstack for tokens in pictures), strict=True)
            ],
        )

    def _forward_size(self, pixels: Pixels) -> int:
        largest = LARGEST_PADDED.get(pixels.values.device.type, 0)
        return self._images_per_forward if pixels.modality == "image" and pixels.values.numel() <= largest else 1

    def _forward(self, pictures: Sequence[Pixels], size: int) -> Iterator[VisualTokens]:
        first = pictures[0]
        pixels_name, grid_name = PIXELS[first.modality]
        padding = [torch.zeros_like(first.values)] * (size - len(pictures))
        named = {pixels_name: torch.cat([*(picture.values for picture in pictures), *padding])}
        if first.grid:
            named[grid_name] = torch.tensor([first.grid] * size, device=first.values.device)
        output = self._library(first.modality)(**named, return_dict=True)
        layers = getattr(output, "deepstack_features", None) or ()
        for place in range(len(pictures)):
            # Copies: a row of a shared tensor would keep all of it in memory.
            yield VisualTokens(
                features=output.pooler_output[place].clone(),
                deepstack=tuple(layer[place].clone() for layer in layers),
                grid=first.grid,
            )

    def _library(self, modality: Modality) -> Any:
        model = self._target.model.model
        return model.get_image_features if modality == "image" else model.get_video_features

    def _weight_samples(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self._target.model.model.named_parameters():
            if not name.startswith(f"{self._target.family.text_model}."):
                values = weight.detach().reshape(-1)
                yield name, values[:: max(1, len(values) // SAMPLES)]


def _processor_kind(device: torch.device) -> tuple[str, ...]:
    if device.type == "cuda":
        return device.type, torch.cuda.get_device_name(device)
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", bool)()  # bfloat16 products go another way with them
    return device.type, torch.backends.cpu.get_cpu_capability(), f"tiles={tiles}"
