"""Where questions come from: a file of them, a directory of pictures and videos, or the town."""

from __future__ import annotations

import mimetypes
import os
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from flashsd_ray.errors import ConfigError
from flashsd_ray.training.drafter.manifest import ManifestQuestions
from flashsd_ray.training.drafter.questions import SAMPLED_SHARE, Question, TownQuestions, drawing
from flashsd_ray.training.drafter.series import Chosen, Series
from flashsd_ray.training.town.scene import Split

HELDOUT_SHARE = 0.05
MOST_HELDOUT = 60


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What is learnt from, and what shows how well; no picture is in both."""

    train: Series[Question]
    heldout: Series[Question]


class Grouped(Protocol):
    """Questions of which it is known which ones are about the same pictures."""

    groups: array[int]  # one of 64 bits for each question

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Question: ...


class FolderQuestions:
    """Every prompt about every picture and video below a directory, in the order of their names.

    Raises:
        ConfigError: there is none, or there is no prompt.
    """

    def __init__(self, folder: Path, prompts: Sequence[str], *, sampled_share: float = SAMPLED_SHARE) -> None:
        if not prompts:
            raise ConfigError(f"{folder} is a directory: say with --prompt what to ask about its files")
        self._prompts = tuple(prompts)
        self._sampled_share = sampled_share
        self._paths = [
            os.path.join(parent, name)  # noqa: PTH118 (a million Path objects would take a gigabyte)
            for parent, _, names in sorted(os.walk(folder))
            for name in sorted(names)
            if is_media(name)
        ]
        if not self._paths:
            raise ConfigError(f"no file below {folder} has the name of a picture or a video")
        self.groups = array("Q", (self[place].group for place in range(len(self))))

    def __len__(self) -> int:
        return len(self._paths) * len(self._prompts)

    def __getitem__(self, place: int, /) -> Question:
        path, prompt = self._paths[place // len(self._prompts)], self._prompts[place % len(self._prompts)]
        temperature, seed = drawing(f"{prompt}\n{path}", self._sampled_share)
        return Question(prompt=prompt, visuals=(path,), temperature=temperature, seed=seed, origin=path)


def is_media(name: str) -> bool:
    """Whether a file of this name could be a picture or a video."""
    kind, _ = mimetypes.guess_type(name, strict=False)
    return not name.startswith(".") and (kind or "").startswith(("image/", "video/"))


def open_data(
    source: str,  # a file of JSON lines, a directory, or "town:N"
    *,
    prompts: Sequence[str] = (),  # about every file of a directory
    num_heldout: int | None = None,  # None: a twentieth, and at most 60
    heldout_source: str | None = None,  # None: some of the pictures of the source
    sampled_share: float = SAMPLED_SHARE,
) -> Data:
    """The data behind a source.

    Raises:
        ConfigError: it cannot be read, or there is too little of it.
    """
    learnt = _open(source, "train", prompts, sampled_share)
    if heldout_source is not None:
        return Data(learnt, _open(heldout_source, "heldout", prompts, sampled_share))
    if isinstance(learnt, TownQuestions):
        kept = MOST_HELDOUT if num_heldout is None else num_heldout
        return Data(learnt, learnt.of_split("heldout", kept))
    return hold_out(learnt, num_heldout, source)


def _open(source: str, split: Split, prompts: Sequence[str], sampled_share: float) -> Grouped | TownQuestions:
    made = re.fullmatch(r"(\w+):(\d+)", source)
    if made and made[1] == "town":
        return TownQuestions(int(made[2]), split, sampled_share=sampled_share)
    if made and not Path(source).exists():
        raise ConfigError(f"{source}: there is no world {made[1]!r}; clips of the one there is are town:{made[2]}")
    path = Path(source)
    if path.is_dir():
        return FolderQuestions(path, prompts, sampled_share=sampled_share)
    if prompts:
        raise ConfigError(f"--prompt is for a directory; {source} says itself what to ask")
    return ManifestQuestions(path, sampled_share=sampled_share)


def hold_out(questions: Grouped, count: int | None, name: str) -> Data:
    """Questions about some pictures, chosen by the pictures alone, are held out; all others are learnt from.

    Raises:
        ConfigError: nothing would be left to learn from.
    """
    total = len(questions)
    if count is None:
        count = min(MOST_HELDOUT, max(1, round(HELDOUT_SHARE * total)))
    if total <= count:
        raise ConfigError(f"{name} holds {total} questions, and {count} are to be held out")
    groups = np.frombuffer(questions.groups, dtype=np.uint64)
    order = np.argsort(groups, kind="stable")
    end = int(np.searchsorted(groups[order], groups[order[count - 1]], side="right")) if count else 0
    if end >= total:
        raise ConfigError(
            f"{name}: {end} of {total} questions share pictures with the {count} held out, so none is left to learn from"
        )
    return Data(Chosen(questions, np.sort(order[end:])), Chosen(questions, np.sort(order[:count])))
