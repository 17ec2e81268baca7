"""Parts of a checkpoint's matrices, read without the rest of them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from flashsd_ray.errors import CheckpointError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FIRST_OUTPUT = "layers.0.self_attn.o_proj.weight"  # of the decoder in Llama's layout, and of no vision tower


class CheckpointFiles:
    """The safetensors files of one checkpoint; names are those in the files, which differ between releases."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError when there are no safetensors files, or none of a decoder in Llama's layout."""
        self._opened = ExitStack()
        self._files: dict[str, Any] = {}  # by their name
        self._file_of = _files_by_key(folder)
        self._text_model = self.find(FIRST_OUTPUT).removesuffix(FIRST_OUTPUT)

    @classmethod
    def of(cls, name: str) -> CheckpointFiles:
        """The files of a directory, or of a hub id (which are fetched where they are not here yet).

        Raises:
            CheckpointError: there are none that a rank could read its share from.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        if Path(name).is_dir():
            return cls(Path(name))
        try:
            return cls(Path(snapshot_download(name, allow_patterns=["*.safetensors", INDEX])))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise CheckpointError(f"cannot load target {name!r}: {error}") from error

    def __enter__(self) -> CheckpointFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """What was read of the files does not count as memory of this process any more."""
        self._opened.close()
        self._files.clear()

    def find(self, ending: str) -> str:
        """The one name with this ending.

        Raises:
            CheckpointError: there is none, or more than one.
        """
        found = [key for key in self._file_of if key.endswith(ending)]
        if len(found) != 1:
            raise CheckpointError(f"the checkpoint holds {len(found)} tensors *{ending}; one is needed to split it")
        return found[0]

    def text(self, name: str) -> str:
        """The full name of a tensor of the language model, such as ``norm.weight`` or ``layers.0.mlp.up_proj.weight``."""
        return self._text_model + name

    def read(
        self,
        key: str,
        rows: range | None = None,  # None: all
        columns: range | None = None,
    ) -> Tensor:
        """A copy of the chosen part; the rest is not read where it lies elsewhere in the file.

        Raises:
            CheckpointError: no file holds the tensor, or its file is damaged.
        """
        from safetensors import SafetensorError

        try:
            part = self._file(self._file_of[key]).get_slice(key)
            chosen = [slice(None) if span is None else slice(span.start, span.stop) for span in (rows, columns)]
            tensor: Tensor = part[tuple(chosen[: len(part.get_shape())])]
        except KeyError:
            raise CheckpointError(f"the checkpoint has no tensor {key}") from None
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"tensor {key} cannot be read: {error}") from error
        return tensor.clone(memory_format=torch.contiguous_format)  # what was read is a view of the file

    def _file(self, path: str) -> Any:
        from safetensors import safe_open

        if path not in self._files:
            self._files[path] = self._opened.enter_context(safe_open(path, framework="pt"))
        return self._files[path]


def _files_by_key(folder: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        if (folder / INDEX).is_file():
            by_key: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
            return {key: str(folder / name) for key, name in by_key.items()}
        with safe_open(folder / WHOLE, framework="pt") as opened:
            return dict.fromkeys(opened.keys(), str(folder / WHOLE))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: a target can only be split when it is stored as {WHOLE} or has a {INDEX} ({error})"
        ) from error
