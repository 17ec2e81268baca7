"""Results on disk as they come, one JSON line each, so that a measurement that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashsd_ray.errors import ConfigError


class ResultJournal:
    """A file whose first line says what is measured; the others are results."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Reads what is there.

        Raises:
            ConfigError: the file is about another measurement.
        """
        self._path = path
        self.results: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(json.dumps(identity))
        lines = _whole_lines(path)
        if not lines:
            self._write({"identity": known}, mode="w")
            return
        self.results = [json.loads(line) for line in lines[1:]]
        then = json.loads(lines[0]).get("identity", {})
        for name in sorted({*then, *known}):
            if then.get(name) != known.get(name):
                raise ConfigError(
                    f"{path} holds a measurement with {name} {then.get(name)}, now it is {known.get(name)}; "
                    "name another --out, or say --overwrite"
                )

    def add(self, result: Mapping[str, Any]) -> None:
        """The result is on disk."""
        self._write(result, mode="a")
        self.results.append(json.loads(json.dumps(result)))

    def _write(self, values: Mapping[str, Any], mode: str) -> None:
        with self._path.open(mode, encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[str]:
    """The lines of the file; half a line at its end, as a killed process leaves it, is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return whole.decode("utf-8").splitlines()
