"""The files of this repository, for tests about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flashsd_ray"
# Made by tools or by users; nothing of it belongs to the repository.
FOREIGN = {"build", "dist", "__pycache__", "node_modules"}
TEXT_SUFFIXES = {"", ".cfg", ".ini", ".json", ".md", ".py", ".sh", ".svg", ".toml", ".txt", ".yaml", ".yml"}


def files(*suffixes: str) -> list[Path]:
    """Every file that has one of the suffixes, sorted; hidden folders but .ci and .github are left out."""
    return sorted(path for path in _walk(ROOT) if path.suffix in suffixes)


def documents() -> list[Path]:
    """Every Markdown file."""
    return files(".md")


def code_blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of this language in a Markdown file."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    """The path as a test shows it."""
    return path.relative_to(ROOT).as_posix()


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            is_hidden = path.name.startswith(".") and path.name not in (".ci", ".github")
            if not is_hidden and path.name not in FOREIGN and not path.name.endswith(".egg-info"):
                yield from _walk(path)
        else:
            yield path
