"""What a target answered, on disk for every later training: files of JSON lines, by the fingerprint of the target."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from flashsd_ray.config import MediaConfig
from flashsd_ray.training.drafter.questions import TOWN, Question

FILE_BITS = 16  # a place is an offset with the number of its file in the lowest bits


class AnswerStore:
    """The answers of one target in a folder; only where they stand is held in memory.

    Several processes may write at the same time if each has a name of its own.
    """

    def __init__(self, folder: Path, fingerprint: str, writer: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"answers-{fingerprint}{writer and '-'}{writer}.jsonl"
        self._paths = sorted({own, *folder.glob(f"answers-{fingerprint}*.jsonl")})
        self._own = self._paths.index(own)
        self._file = own.open("ab+")
        self._end = self._repair()
        self._readers = {number: path.open("rb") for number, path in enumerate(self._paths)}
        self._places: dict[bytes, int] = {}
        for number, reader in self._readers.items():
            offset = 0
            for line in reader:
                key = _key_in(line)
                if key is not None:
                    self._places[key] = offset << FILE_BITS | number
                offset += len(line)

    def __len__(self) -> int:
        return len(self._places)

    def place_of(self, key: str) -> int | None:
        """Where the answer stands that was given to this key; None when there is none."""
        return self._places.get(bytes.fromhex(key))

    def token_ids(self, place: int) -> tuple[int, ...]:
        """The answer that stands there."""
        reader = self._readers[place & (1 << FILE_BITS) - 1]
        reader.seek(place >> FILE_BITS)
        return tuple(json.loads(reader.readline())["token_ids"])

    def add(self, key: str, question: Question, token_ids: Sequence[int]) -> int:
        """The answer is on disk; returns where it stands."""
        said = {"prompt": question.prompt, "visuals": question.visuals, "temperature": question.temperature}
        line = json.dumps({"key": key, "token_ids": list(token_ids), **said}).encode() + b"\n"
        place = self._end << FILE_BITS | self._own
        self._file.write(line)
        self._file.flush()
        self._end += len(line)
        self._places[bytes.fromhex(key)] = place
        return place

    def close(self) -> None:
        """The files are closed."""
        for file in (self._file, *self._readers.values()):
            file.close()

    def _repair(self) -> int:
        """The line that was being written when a run was stopped is ended; returns the length of our own file."""
        end = self._file.seek(0, os.SEEK_END)
        if end:
            self._file.seek(end - 1)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")
                self._file.flush()
                end += 1
        return end


def key_of(question: Question, media: MediaConfig, max_new_tokens: int) -> str:
    """Equal for questions that would get the same answer: a changed file is another question."""
    said: list[Any] = [
        question.prompt,
        question.start_s,
        question.end_s,
        question.temperature,
        question.seed,
        question.answer,
    ]
    said += [media.num_frames, media.fps, max_new_tokens, *(_identity(name) for name in question.visuals)]
    return blake2b(json.dumps(said).encode(), digest_size=12).hexdigest()


def _identity(reference: str) -> list[Any]:
    if reference.startswith(TOWN):
        return [reference]
    path = os.path.abspath(reference)  # noqa: PTH100 (a link may point elsewhere tomorrow)
    try:
        status = Path(path).stat()
    except OSError:
        return [path]
    return [path, status.st_size, status.st_mtime_ns]


def _key_in(line: bytes) -> bytes | None:
    """The key of a whole line; None for half a line."""
    try:
        return bytes.fromhex(json.loads(line)["key"])
    except (ValueError, KeyError, TypeError):
        return None
