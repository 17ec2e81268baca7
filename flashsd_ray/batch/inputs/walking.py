"""Which files lie below a directory, or match a pattern: one by one, in the same order on every run."""

from __future__ import annotations

import heapq
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatchcase
from itertools import islice
from typing import IO

from flashsd_ray.batch.storage import Location

MAGIC = re.compile(r"[*?\[]")
NAMES_IN_MEMORY = 200_000  # of one directory; more are sorted through temporary files


def walk(root: Location, enters: Callable[[str], bool] = lambda path: True) -> Iterator[str]:
    """Paths, relative to the root, of all files below it whose name does not begin with a dot; sorted in each directory.

    Links to directories are not followed. One directory's names at a time, and those of its parents, are held.

    Args:
        enters: whether the directory with this relative path may hold wanted files.

    Raises:
        StorageError: a directory cannot be listed.
    """
    yield from _walk(root, "", enters)


def _walk(directory: Location, prefix: str, enters: Callable[[str], bool]) -> Iterator[str]:
    # A slash marks directories, in the sorting too.
    names = (entry.name + "/" * entry.is_directory for entry in directory.entries() if not entry.name.startswith("."))
    for name in sorted_names(names):
        if not name.endswith("/"):
            yield prefix + name
        elif enters(prefix + name[:-1]):
            yield from _walk(directory.child(name[:-1]), prefix + name, enters)


def sorted_names(names: Iterable[str], in_memory: int = NAMES_IN_MEMORY) -> Iterator[str]:
    """The names in ascending order, of which so many at most are held in memory."""
    names = iter(names)
    with ExitStack() as stack:
        runs: list[IO[str]] = []
        while part := sorted(islice(names, in_memory)):
            if len(part) < in_memory and not runs:
                yield from part
                return
            run = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            run.writelines(json.dumps(name) + "\n" for name in part)
            run.seek(0)
            runs.append(run)
        yield from heapq.merge(*(map(json.loads, run) for run in runs))


class Pattern:
    """A path or address in which ``*``, ``?`` and ``[...]`` stand for parts of names, and ``**`` for any directories."""

    def __init__(self, text: str) -> None:
        address = Location.at(text).address
        scheme, mark, rest = address.rpartition("://")
        parts = rest.split("/")
        first = next((place for place, part in enumerate(parts) if MAGIC.search(part)), len(parts) - 1)
        self.root = Location(scheme + mark + "/".join(parts[:first]) or ("/" if rest.startswith("/") else "."))
        self._parts = parts[first:]

    def paths(self) -> Iterator[str]:
        """Paths, relative to ``root``, of the files that match; raises as ``walk``."""
        for path in walk(self.root, self._enters):
            if _matches(self._parts, path.split("/")):
                yield path

    def _enters(self, path: str) -> bool:
        steps = path.split("/")
        before = self._parts[: self._parts.index("**")] if "**" in self._parts else self._parts[:-1]
        if "**" not in self._parts and len(steps) > len(before):
            return False
        return all(fnmatchcase(step, part) for step, part in zip(steps, before, strict=False))


def is_pattern(text: str) -> bool:
    """Whether the text is more than one name."""
    return MAGIC.search(text) is not None


def _matches(parts: list[str], steps: list[str]) -> bool:
    if not parts or not steps:
        return not parts and not steps
    if parts == ["**"]:
        return True
    if parts[0] == "**":
        return _matches(parts[1:], steps) or _matches(parts, steps[1:])
    return fnmatchcase(steps[0], parts[0]) and _matches(parts[1:], steps[1:])
