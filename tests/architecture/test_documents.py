"""What the documents say is true: links lead somewhere, commands exist, code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from flashsd_ray.cli.main import build_parser
from flashsd_ray.config import Config, MediaConfig
from flashsd_ray.media import load_visual
from flashsd_ray.models import compressors
from flashsd_ray.models.drafters import names as drafter_names
from flashsd_ray.models.pretrained import BUNDLED_TARGETS, FAMILIES
from tests.architecture.repository import PACKAGE, ROOT, code_blocks, documents, name

README = ROOT / "README.md"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH_MENTION = re.compile(r"`((?:flashsd_ray|tests|docs|models|speculation|engine|media|cli)/[\w./-]+)`")


@pytest.mark.parametrize("document", documents(), ids=name)
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    missing = []
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            missing.append(link)
    for path_name in PATH_MENTION.findall(text):
        places = (ROOT / path_name, PACKAGE / path_name, document.parent / path_name)
        if not any(place.exists() for place in places):
            missing.append(path_name)
    assert missing == []


def anchors(path: Path) -> set[str]:
    """The names under which a Markdown file's headings can be linked."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents(), ids=name)
def test_commands_are_spelt_as_the_parser_spells_them(document: Path) -> None:
    parser = build_parser()
    for block in code_blocks(document, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["flashsd"] and words[1:] != ["--help"]:
                parser.parse_args(words[1:])
            if words[:1] == ["make"]:
                assert all(word in make_targets() for word in words[1:] if "=" not in word), line


def make_targets() -> set[str]:
    """What make can be asked for."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("document", "block"),
    [pytest.param(path, block, id=name(path)) for path in documents() for block in code_blocks(path, "python")],
)
def test_python_blocks_run(document: Path, block: str, monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    monkeypatch.chdir(ROOT)
    frames = load_visual(clip, MediaConfig(), num_frames=4).frames
    given = {"folder": BUNDLED_TARGETS["demo"], "frames": [Image.fromarray(frame) for frame in frames]}
    exec(compile(block, str(document), "exec"), {"__name__": "__main__", **given})


def test_the_readme_begins_with_the_two_commands() -> None:
    (first, *_) = code_blocks(README, "bash")
    assert "make demo" in first
    assert "make test" in first


def test_the_readme_knows_every_model_drafter_compressor_and_room() -> None:
    text = README.read_text(encoding="utf-8")
    rooms = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    expected = [
        *(family.name for family in FAMILIES.values()),
        *(f"`{kind}`" for kind in (*drafter_names(), *compressors.names())),
        *(f"{room}/" for room in rooms),
    ]
    assert [word for word in expected if word not in text] == []


def test_every_setting_is_documented() -> None:
    from docs.make_configuration import described

    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == described(Config())


def test_decision_records_are_numbered_and_complete() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [path.name[:4] for path in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for path in records:
        text = path.read_text(encoding="utf-8")
        headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "How we would know that we were wrong"], path.name
