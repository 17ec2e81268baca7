"""The part of a message that is not packed: the elements of tensors and arrays, one after the other, aligned.

Elements are written little-endian as they lie in memory. A shape is believed only when its bytes are there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flashsd_ray.errors import WireError

ALIGNMENT = 16
MAX_AXES = 8
MAX_ELEMENTS = 2**48  # zero counted as one, so that strides cannot overflow
TENSOR_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
}
ARRAY_DTYPES = {
    name: np.dtype(name)
    for name in (
        "float64",
        "float32",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
    )
}


def padding(num_bytes: int) -> int:
    """Bytes that are missing to the next aligned place."""
    return -num_bytes % ALIGNMENT


class BufferWriter:
    """Gathers elements; what it returns stands in the packed part in their place."""

    def __init__(self) -> None:
        self.parts: list[memoryview] = []

    def add_tensor(self, tensor: Tensor) -> list[Any]:
        """The tensor's dtype and shape; its elements are written, wherever they are."""
        name = str(tensor.dtype).removeprefix("torch.")
        if name not in TENSOR_DTYPES:
            raise WireError(f"a tensor of {name} cannot be sent")
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        self.parts.append(flat.view(torch.uint8).numpy().data)
        return [name, *tensor.shape]

    def add_array(self, array: np.ndarray) -> list[Any]:
        """The array's dtype and shape; its elements are written."""
        name = array.dtype.name
        if name not in ARRAY_DTYPES or not array.dtype.isnative:
            raise WireError(f"an array of {array.dtype} cannot be sent")
        self.parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return [name, *array.shape]


class BufferReader:
    """Hands out elements in the order in which they were written."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._place = 0

    @property
    def is_empty(self) -> bool:
        """Whether every byte was handed out."""
        return self._place == len(self._data)

    def tensor(self, described: Any) -> Tensor:
        """The next tensor; it shares the message's memory when that may be written to, else it has its own.

        Raises:
            WireError: dtype, shape and the bytes that are there do not fit.
        """
        name, shape = _described(described)
        dtype = TENSOR_DTYPES.get(name)
        if dtype is None:
            raise WireError(f"unknown dtype {name!r} of a tensor")
        data = self._take(shape, dtype.itemsize)
        if not data:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(bytearray(data) if data.readonly else data, dtype=dtype).view(shape)

    def array(self, described: Any) -> np.ndarray:
        """The next array; it shares the message's memory.

        Raises:
            WireError: dtype, shape and the bytes that are there do not fit.
        """
        name, shape = _described(described)
        dtype = ARRAY_DTYPES.get(name)
        if dtype is None:
            raise WireError(f"unknown dtype {name!r} of an array")
        return np.frombuffer(self._take(shape, dtype.itemsize), dtype=dtype).reshape(shape)

    def _take(self, shape: list[int], itemsize: int) -> memoryview:
        size = math.prod(shape) * itemsize
        stop = self._place + size
        if stop + padding(size) > len(self._data):
            raise WireError(
                f"a tensor of shape {tuple(shape)} needs {size} bytes, {len(self._data) - self._place} follow"
            )
        data = self._data[self._place : stop]
        self._place = stop + padding(size)
        return data


def _described(described: Any) -> tuple[str, list[int]]:
    if not isinstance(described, list) or not described or not isinstance(described[0], str):
        raise WireError("a tensor is not described by its dtype and shape")
    name, *shape = described
    if len(shape) > MAX_AXES or any(type(size) is not int or size < 0 for size in shape):
        raise WireError(f"{shape[: MAX_AXES + 1]} is not the shape of a tensor")
    if math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise WireError(f"{shape} is not the shape of a tensor")
    return name, shape
