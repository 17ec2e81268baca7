"""The files in cluster/, read as their tools read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
KUBERNETES = sorted((CLUSTER / "kubernetes").glob("*.yaml"))
Document = dict[str, Any]


def load(name: str) -> Document:
    """A file with one document."""
    document: Document = yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))
    return document


def documents(path: Path) -> list[Document]:
    """A file with several."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def objects() -> list[Document]:
    """Every object of kubernetes/."""
    return [document for path in KUBERNETES for document in documents(path)]


def of_kind(kind: str) -> list[Document]:
    """Those of one kind."""
    return [document for document in objects() if document["kind"] == kind]


def walk(node: Any) -> Iterator[Any]:
    """Every mapping and list below a node, itself included."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        yield node
        for value in node:
            yield from walk(value)


def pins() -> dict[str, str]:
    """Versions of constraints.txt for the Python of the image."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        match = re.match(r"^([\w.-]+)==([^;\s]+)(?:; (.*))?$", line)
        if match and (match[3] or "python_version >=").startswith("python_version >="):
            found[match[1]] = match[2]
    return found


_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(value: object) -> float:
    """An amount as Kubernetes writes it: 500m, 16Gi, "1".

    Raises:
        ValueError: it has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|k|M|G|Ki|Mi|Gi|Ti)?", str(value))
    if match is None:
        raise ValueError(f"{value!r} is no quantity")
    return float(match[1]) * _UNITS[match[2] or ""]
