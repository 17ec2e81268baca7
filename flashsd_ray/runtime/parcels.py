"""Encoded prompts as Ray's object store likes them: numpy arrays, which every reader on a node maps without copying.

Torch tensors would be pickled through their storages, measured at two to five times the time (bfloat16 most of all).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flashsd_ray.types import EncodedPrompt, VisualSegment


@dataclass(frozen=True, slots=True, eq=False)
class PackedTensor:
    """A tensor's bytes and what they mean."""

    array: np.ndarray  # of the tensor's shape; of its dtype, or int16 in place of bfloat16
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> PackedTensor:
        """The tensor, copied to the CPU where it is not there already."""
        there = tensor.detach().cpu().contiguous()
        bits = there.view(torch.int16) if there.dtype == torch.bfloat16 else there
        return cls(bits.numpy(), str(there.dtype).removeprefix("torch."))

    def unpacked(self) -> Tensor:
        """The tensor; it shares the array's memory and must not be written to."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # arrays in the object store are read-only, and so are we
            tensor = torch.from_numpy(self.array)
        return tensor.view(torch.bfloat16) if self.dtype == "bfloat16" else tensor


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """An encoded prompt on its way from an encoder to a lane."""

    token_ids: tuple[int, ...]
    segments: tuple[VisualSegment, ...]
    embeddings: PackedTensor
    positions: PackedTensor
    deepstack: tuple[PackedTensor, ...]

    @classmethod
    def of(cls, prompt: EncodedPrompt) -> Parcel:
        """The prompt, packed."""
        return cls(
            token_ids=prompt.token_ids,
            segments=prompt.segments,
            embeddings=PackedTensor.of(prompt.embeddings),
            positions=PackedTensor.of(prompt.positions),
            deepstack=tuple(map(PackedTensor.of, prompt.deepstack)),
        )

    def unpacked(self) -> EncodedPrompt:
        """The prompt; its tensors share the parcel's memory."""
        return EncodedPrompt(
            token_ids=self.token_ids,
            segments=self.segments,
            embeddings=self.embeddings.unpacked(),
            positions=self.positions.unpacked(),
            deepstack=tuple(part.unpacked() for part in self.deepstack),
        )
