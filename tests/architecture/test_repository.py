"""What must not creep into the repository, and what must not fall out of the test run."""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest

from flashsd_ray import __version__
from tests.architecture.repository import ROOT, TEXT_SUFFIXES, documents, files, name

# Put together here, so that this file does not find itself.
NOTES_TO_SELF = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3 + r"\b")))
PLACES = re.compile(
    r"(?<![\w.])/(?:" + "|".join(("ho" + "me", "ro" + "ot", "Use" + "rs", "wo" + "rk", "scr" + "atch")) + r")/\w"
)
LARGEST_FILE_BYTES = 50 * 10**6
FEWEST_TESTS = {"unit": 2000, "contract": 240, "ray": 25, "e2e": 50, "architecture": 40}


@pytest.mark.parametrize("pattern", [NOTES_TO_SELF, PLACES], ids=["notes to self", "places of one machine"])
def test_no_text_holds(pattern: re.Pattern[str]) -> None:
    texts = {name(path): path.read_text(encoding="utf-8", errors="replace") for path in files(*TEXT_SUFFIXES)}
    assert len(texts) > 100
    found = {path: [match.group() for match in pattern.finditer(text)] for path, text in texts.items()}
    assert {path: matches for path, matches in found.items() if matches} == {}


def test_no_file_is_too_large_for_a_repository() -> None:
    tracked = files(*TEXT_SUFFIXES, ".safetensors", ".mp4", ".png")
    assert [name(path) for path in tracked if path.stat().st_size > LARGEST_FILE_BYTES] == []


def test_every_test_file_holds_tests() -> None:
    for path in files(".py"):
        if path.name.startswith("test_"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found = [
                node.name
                for node in ast.walk(tree)
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[:5] == "test_"
            ]
            found += [
                node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name[:4] == "Test"
            ]
            found += re.findall(r"^Test\w+ = \w+\.TestCase", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert found, f"{name(path)} holds nothing that pytest collects"


def test_no_tests_were_lost(request: pytest.FixtureRequest) -> None:
    config = request.config
    is_whole_run = config.args_source == config.ArgsSource.TESTPATHS
    narrowing = ("keyword", "markexpr", "lf", "deselect", "ignore")
    if not is_whole_run or any(getattr(config.option, name, None) for name in narrowing):
        return  # somebody asked for some of the tests
    tests = ROOT / "tests"
    counts = Counter(item.path.relative_to(tests).parts[0] for item in request.session.items)
    assert {folder: counts[folder] for folder, floor in FEWEST_TESTS.items() if counts[folder] < floor} == {}


def test_the_changelog_knows_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pins_cover_every_library_that_is_declared() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]")[0]
    declared = re.findall(r'"([\w-]+)(?:\[\w+\])?>=', project.split("dependencies = ")[1])
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert declared
    assert [library for library in declared if library not in pinned] == []


def test_documents_are_short() -> None:
    # A page that nobody reads to its end is not read at all.
    limits = {"README.md": 400, "CONTRIBUTING.md": 120, "docs/architecture.md": 150}
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in documents()}
    assert {path: lengths[path] for path, limit in limits.items() if lengths[path] > limit} == {}
