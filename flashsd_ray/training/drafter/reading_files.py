"""Readings on disk, so that another drafter with the same taps need not have the target read again."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flashsd_ray.training.drafter.readings import Reading
from flashsd_ray.types import VisualSegment


class ReadingFiles:
    """One file for each reading, named by the key of its answer; the folder's name says whose taps they are."""

    def __init__(self, parent: Path, fingerprint: str, tap_layers: tuple[int, ...], *, has_embeddings: bool) -> None:
        named = "-".join([fingerprint, *map(str, tap_layers), *(["vision"] if has_embeddings else [])])
        self._folder = parent / f"readings-{named}"
        self._folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Reading | None:
        """The reading that was put under the key; None when there is none, or half of one."""
        with suppress(OSError, SafetensorError, ValueError, KeyError), safe_open(self._path(key), "pt") as file:
            values = json.loads(file.metadata()["reading"])
            values["token_ids"] = tuple(values["token_ids"])
            values["segments"] = tuple(VisualSegment(**segment) for segment in values["segments"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return Reading(**values, embeddings=tensors.pop("embeddings", None), **tensors)
        return None

    def put(self, key: str, reading: Reading) -> None:
        """The reading is on disk."""
        tensors = {"taps": reading.taps, "finals": reading.finals, "embeddings": reading.embeddings}
        values = {
            "token_ids": reading.token_ids,
            "num_prompt_tokens": reading.num_prompt_tokens,
            "segments": [asdict(segment) for segment in reading.segments],
            "is_greedy": reading.is_greedy,
        }
        path = self._path(key)
        partial = path.with_suffix(".partial")
        present = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        save_file(present, partial, {"reading": json.dumps(values)})
        partial.replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"
