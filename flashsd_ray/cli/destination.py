"""Where captions are written: standard output, one file, or one file per input in a directory."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from flashsd_ray.cli.parsing import UsageError


class Destination:
    """Gives out the stream for each input; a file is created when its first caption is there."""

    def __init__(self, output: str | None, paths: Sequence[str], suffix: str) -> None:
        """Raises UsageError when writing there would lose an input or another output."""
        self._suffix = suffix
        self._file: Path | None = None
        self._directory: Path | None = None
        self._stream: TextIO | None = None
        self._stream_path: Path | None = None
        if output is None or output == "-":
            return
        if output.endswith("/") or Path(output).is_dir():
            self._directory = Path(output)
        else:
            self._file = Path(output)
        self._check(paths)

    @property
    def is_standard_output(self) -> bool:
        """Whether captions go to where the command was typed."""
        return self._file is None and self._directory is None

    @property
    def is_per_input(self) -> bool:
        """Whether every input has a file of its own."""
        return self._directory is not None

    def stream(self, path: str) -> TextIO:
        """Where the caption of this input goes; the stream of the input before is closed.

        Raises:
            UsageError: the file cannot be written.
        """
        wanted = self._file or (self._directory and self._path_of(path))
        if wanted is None:
            return sys.stdout
        if wanted != self._stream_path:
            self.close()
            try:
                wanted.parent.mkdir(parents=True, exist_ok=True)
                self._stream = wanted.open("w", encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise UsageError(f"cannot write {wanted}: {error.strerror}") from error
            self._stream_path = wanted
        assert self._stream is not None
        return self._stream

    def close(self) -> None:
        """Everything is on disk."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _path_of(self, path: str) -> Path:
        assert self._directory is not None
        return self._directory / (Path(path).resolve().stem + self._suffix)

    def _check(self, paths: Sequence[str]) -> None:
        outputs = [self._file] if self._file else [self._path_of(path) for path in paths]
        inputs = {Path(path).resolve() for path in paths}
        for wanted in outputs:
            if wanted is not None and wanted.resolve() in inputs:
                raise UsageError(f"--output would overwrite the input {wanted}")
        if self._directory is not None:
            name, count = Counter(str(wanted) for wanted in outputs).most_common(1)[0]
            if count > 1:
                raise UsageError(f"{count} inputs would be written to {name}; give them different names")
        if self._file is not None and not self._file.parent.is_dir():
            raise UsageError(f"cannot write {self._file}: {self._file.parent} is no directory")
