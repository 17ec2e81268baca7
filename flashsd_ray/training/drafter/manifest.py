"""Questions from a JSON-lines file, one object a line; only where its lines begin is held in memory.

A line has ``prompt`` or ``prompts``, and may have ``path`` or ``paths`` (relative to the file), ``start`` and ``end`` (of
the videos, in seconds), and ``answer`` (the target's own, if it was asked elsewhere).
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from flashsd_ray.errors import ConfigError
from flashsd_ray.training.drafter.questions import SAMPLED_SHARE, Question, drawing

FIELDS = ("prompt", "prompts", "path", "paths", "start", "end", "answer")
LONGEST_LINE = 2**20  # bytes; a file without line ends is not a list of questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one line asks."""

    prompts: tuple[str, ...]
    paths: tuple[str, ...]
    start_s: float | None
    end_s: float | None
    answer: str | None


class ManifestQuestions:
    """The questions of a file, read again whenever one is wanted.

    Raises:
        ConfigError: the file cannot be read, or a line is no question; the message names the line.
    """

    def __init__(self, path: Path, *, sampled_share: float = SAMPLED_SHARE) -> None:
        self._path = path
        self._sampled_share = sampled_share
        self._offsets, self._numbers = array("Q"), array("Q")  # of the line of each question
        self._prompts = array("L")  # which of the line's prompts it is
        self.groups = array("Q")
        with _opened(path) as file:
            for number, offset, data in _lines(file, path):
                line = parse(data, self._where(number))
                for prompt in range(len(line.prompts)):
                    self._offsets.append(offset)
                    self._numbers.append(number)
                    self._prompts.append(prompt)
                    self.groups.append(self._question(line, prompt, number).group)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, place: int, /) -> Question:
        number = self._numbers[place]
        with _opened(self._path) as file:
            file.seek(self._offsets[place])
            line = parse(file.readline(LONGEST_LINE + 1), self._where(number))
        return self._question(line, self._prompts[place], number)

    def _where(self, number: int) -> str:
        return f"{self._path}, line {number}"

    def _question(self, line: Line, prompt: int, number: int) -> Question:
        said = json.dumps([line.prompts[prompt], line.paths, line.start_s, line.end_s])
        temperature, seed = drawing(said, self._sampled_share)
        return Question(
            prompt=line.prompts[prompt],
            visuals=tuple(str(self._path.parent / name) for name in line.paths),
            start_s=line.start_s,
            end_s=line.end_s,
            temperature=temperature,
            seed=seed,
            answer=line.answer,
            origin=self._where(number),
        )


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def parse(
    data: bytes,
    where: str,  # the line, for messages
) -> Line:
    """The line, understood.

    Raises:
        ConfigError: it is no question.
    """
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:  # of the encoding or of JSON
        raise ConfigError(f"{where}: not a line of JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected an object with a prompt, got {type(values).__name__}")
    unknown = [name for name in values if name not in FIELDS]
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(FIELDS)}")
    prompts = _texts(values, "prompt", "prompts", where)
    if not prompts:
        raise ConfigError(f"{where}: there is no prompt")
    answer = _texts(values, "answer", "", where)
    if answer and len(prompts) > 1:
        raise ConfigError(f"{where}: one answer cannot be that to {len(prompts)} prompts; give each a line")
    line = Line(
        prompts=prompts,
        paths=_texts(values, "path", "paths", where),
        start_s=_seconds(values, "start", where),
        end_s=_seconds(values, "end", where),
        answer=answer[0] if answer else None,
    )
    if line.end_s is not None and line.end_s <= (line.start_s or 0.0):
        raise ConfigError(f"{where}: end must lie after start")
    return line


def _texts(values: dict[str, Any], one: str, several: str, where: str) -> tuple[str, ...]:
    """The text under one name, or the list of texts under the other."""
    if one in values and several in values:
        raise ConfigError(f"{where}: give {one} or {several}, not both")
    texts = [values[one]] if one in values else values.get(several, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        name, wanted = (one, "a text that is not empty") if one in values else (several, "a list of texts")
        raise ConfigError(f"{where}: {name} must be {wanted}")
    return tuple(texts)


def _seconds(values: dict[str, Any], name: str, where: str) -> float | None:
    seconds = values.get(name)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ConfigError(f"{where}: {name} must be seconds, 0 or more, got {seconds!r}")
    return float(seconds)


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and content of every line that is not blank."""
    number, offset = 0, 0
    while True:
        try:
            data = file.readline(LONGEST_LINE + 1)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        if not data:
            return
        number += 1
        if len(data) > LONGEST_LINE:
            raise ConfigError(f"{path}, line {number}: is longer than {LONGEST_LINE} bytes; expected JSON lines")
        if data.strip():
            yield number, offset, data
        offset += len(data)
