"""What is written is read again as it was; a crash at any step leaves a unit as it was, or complete."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from flashsd_ray.batch import storage
from flashsd_ray.batch.inputs import open_input
from flashsd_ray.batch.outputs import COLUMNS, Writer, schema_table
from flashsd_ray.batch.outputs.names import file_name
from flashsd_ray.batch.outputs.schema import ARROW
from flashsd_ray.batch.rows import SCHEMA_VERSION, Outcome
from flashsd_ray.batch.storage import Location
from flashsd_ray.errors import ConfigError, StorageError
from tests.media_files import make_video

UNIT, OTHER = "00000000-0123abcd", "00000001-89abcdef"
OUTCOMES = [
    Outcome(row_id="a.mp4", start_s=0.0, end_s=2.0, caption="A <red> ball.", num_tokens=4, tau=2.5, model="demo"),
    Outcome(row_id="a.mp4", segment=1, start_s=2.0, end_s=3.5, caption="It\n\nstops.", extra={"source": ["web", 1]}),
    Outcome(row_id="a.mp4", prompt_index=1, start_s=0.0, end_s=2.0, caption="red"),
    Outcome(row_id="b.png", caption="A picture."),
    Outcome(row_id="c.mp4", error="MediaError", error_message="c.mp4: is empty", finish_reason="error"),
]

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
by_kind: dict[str, st.SearchStrategy[Any]] = {
    "str": texts,
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": numbers,
    "float | None": st.none() | numbers,
    "bool": st.booleans(),
    "Mapping[str, JSON]": st.dictionaries(texts, json_values, max_size=3),
}
outcomes = st.builds(
    Outcome, **{item.name: by_kind[str(item.type)] for item in fields(Outcome) if item.name != "schema_version"}
).filter(lambda outcome: outcome.row_id != "")


@settings(max_examples=30)
@given(st.lists(outcomes, max_size=4), st.sampled_from(["parquet", "jsonl"]))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[Outcome], form: str) -> None:
    writer = Writer(str(tmp_path_factory.mktemp("output")), (form,))
    writer.write(UNIT, rows)
    assert writer.read(UNIT) == rows
    assert list(writer.finished()) == [UNIT]


def test_every_column_has_a_meaning_and_the_documents_say_it() -> None:
    assert list(COLUMNS) == [item.name for item in fields(Outcome)]
    page = Path(__file__).parents[3] / "docs" / "batch.md"
    assert schema_table() in page.read_text()


def test_both_formats_hold_the_same_rows(tmp_path: Path) -> None:
    Writer(str(tmp_path), ("parquet", "jsonl")).write(UNIT, OUTCOMES)
    table = parquet.read_table(tmp_path / "parquet")
    assert table.schema.remove_metadata() == ARROW.remove_metadata()
    assert table.schema.metadata == {b"flashsd.schema_version": str(SCHEMA_VERSION).encode()}
    lines = [json.loads(line) for line in (tmp_path / "jsonl" / f"{UNIT}.jsonl").read_text().splitlines()]
    assert [row | {"extra": json.loads(row["extra"])} for row in table.to_pylist()] == lines


def test_units_are_found_and_others_are_not(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "output"))
    assert list(writer.finished()) == []
    writer.write(OTHER, OUTCOMES[3:])
    writer.write(UNIT, OUTCOMES[:3])
    (tmp_path / "output/parquet/.0123456789abcdef.part").write_bytes(b"begun")
    (tmp_path / "output/parquet/notes.parquet").write_bytes(b"not ours")
    assert sorted(writer.finished()) == [UNIT, OTHER]
    assert list(writer.outcomes()) == OUTCOMES


def test_text_that_is_no_unicode_is_escaped(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), ("jsonl", "parquet"))
    writer.write(UNIT, [Outcome(row_id="\udcff.mp4", extra={"\ud800": ["\udcff"]})])
    (outcome,) = writer.read(UNIT)
    assert (outcome.row_id, outcome.extra) == ("\\udcff.mp4", {"\\ud800": ["\\udcff"]})


def test_a_unit_is_replaced(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), ("parquet", "jsonl"))
    writer.write(UNIT, OUTCOMES)
    writer.write(UNIT, OUTCOMES[:1])
    assert writer.read(UNIT) == OUTCOMES[:1]
    assert sorted(path.name for path in tmp_path.glob("*/*")) == [f"{UNIT}.jsonl", f"{UNIT}.parquet"]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_cannot_be_read_is_one_error(tmp_path: Path, form: str) -> None:
    writer = Writer(str(tmp_path), (form,))
    with pytest.raises(StorageError, match="does not exist"):
        writer.read(UNIT)
    writer.write(UNIT, [replace(OUTCOMES[0], schema_version=99)])
    with pytest.raises(StorageError, match="schema version 99; this program reads 1"):
        writer.read(UNIT)
    (tmp_path / form / f"{UNIT}.{form}").write_bytes(b"damaged")
    with pytest.raises(StorageError, match="is damaged"):
        writer.read(UNIT)


def test_columns_of_later_versions_are_passed_over_and_missing_ones_are_empty(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), ("jsonl",))
    line = {"row_id": "a", "caption": "x", "schema_version": SCHEMA_VERSION, "new": 1}
    Location(str(tmp_path)).child(f"jsonl/{UNIT}.jsonl").write(json.dumps(line).encode())
    assert writer.read(UNIT) == [Outcome(row_id="a", caption="x")]


@pytest.mark.parametrize("formats", [("xml",), ("vtt",), ()])
def test_formats_that_do_not_do_are_refused(formats: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="output"):
        Writer("out", formats)


def test_an_output_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match="cannot be written"):
        Writer(str(tmp_path / "file")).write(UNIT, OUTCOMES)


def test_object_storage() -> None:
    writer = Writer("memory://output/run", ("parquet", "vtt"))
    writer.write(UNIT, OUTCOMES)
    assert (list(writer.finished()), writer.read(UNIT)) == ([UNIT], OUTCOMES)
    found = fsspec.filesystem("memory").find("/output")
    assert found == [
        f"/output/run/parquet/{UNIT}.parquet",
        "/output/run/subtitles/a.mp4.1.vtt",
        "/output/run/subtitles/a.mp4.vtt",
    ]


def test_a_file_that_fails_on_its_way_leaves_the_old_one(tmp_path: Path) -> None:
    for place in (Location(str(tmp_path / "x")), Location("memory://failing/x")):
        place.write(b"old")
        with pytest.raises(TypeError), place.writing() as file:
            file.writelines([b"half a file", None])  # type: ignore[list-item]
        assert place.read() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def dies_at(step: int, writer: Writer, rows: list[Outcome]) -> bool:
    """A process of its own writes the unit and is killed before the line of this number; whether it died."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    count = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename != storage.__file__:
            return None
        count += event == "line"
        if count > step:
            os._exit(9)
        return trace

    sys.settrace(trace)
    writer.write(UNIT, rows)
    os._exit(0)


def test_a_crash_at_any_step_leaves_the_unit_as_it_was_or_complete(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), ("jsonl", "vtt"))
    before, after = OUTCOMES[:1], OUTCOMES[:2]
    writer.write(UNIT, before)
    seen, step = [], 0
    while dies_at(step, writer, after):
        seen.append(writer.read(UNIT))
        assert seen[-1] in (before, after)
        assert list(writer.finished()) == [UNIT]
        step += 1
    assert step > 20
    assert seen[0] == before
    assert seen[-1] == after  # it died after the last rename
    assert (tmp_path / "subtitles/a.mp4.vtt").read_text().count("-->") == 2


def test_subtitles(tmp_path: Path) -> None:
    Writer(str(tmp_path), ("parquet", "vtt", "srt")).write(UNIT, OUTCOMES)
    names = sorted(path.name for path in (tmp_path / "subtitles").iterdir())
    assert names == ["a.mp4.1.srt", "a.mp4.1.vtt", "a.mp4.srt", "a.mp4.vtt"]
    assert (tmp_path / "subtitles/a.mp4.vtt").read_text() == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.000\nA &lt;red&gt; ball.\n\n"
        "2\n00:00:02.000 --> 00:00:03.500\nIt stops.\n\n"
    )
    assert (tmp_path / "subtitles/a.mp4.1.srt").read_text() == "1\n00:00:00,000 --> 00:00:02,000\nred\n\n"


def test_a_shard_of_the_output_is_an_input(tmp_path: Path) -> None:
    video = make_video(num_frames=5)
    (tmp_path / "a.mp4").write_bytes(video)
    rows = [Outcome(row_id="sub/a.mp4", source=str(tmp_path / "a.mp4"), caption="A ball."), OUTCOMES[4]]
    Writer(str(tmp_path / "output"), ("jsonl", "webdataset")).write(UNIT, rows)
    with tarfile.open(tmp_path / f"output/webdataset/{UNIT}.tar") as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert list(content) == ["sub/a_mp4.mp4", "sub/a_mp4.txt", "sub/a_mp4.json"]
    assert content["sub/a_mp4.mp4"] == video
    assert content["sub/a_mp4.txt"] == b"A ball."
    assert json.loads(content["sub/a_mp4.json"])["outcomes"][0]["caption"] == "A ball."
    again = tmp_path / "again"
    (clip,) = open_input([str(tmp_path / "output/webdataset")]).clips()
    assert (clip.row_id, clip.problem) == ("sub/a.mp4", "")
    Writer(str(again), ("jsonl", "webdataset")).write(UNIT, [replace(rows[0], source=clip.source)])
    with tarfile.open(fileobj=io.BytesIO((again / f"webdataset/{UNIT}.tar").read_bytes())) as archive:
        assert archive.extractfile("sub/a_mp4.mp4").read() == video  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("row_id", "expected"),
    [
        ("a.mp4", "a.mp4"),
        ("clips/é b.mp4", "clips/é_b.mp4~"),
        ("../../etc/passwd", "_../_../etc/passwd~"),
        ("/abs", "_/abs~"),
        ("a\0b", "a_b~"),
        ("x.vtt/y", "x.vtt_/y~"),
        ("", "_~"),
        ("-rf", "_-rf~"),
    ],
)
def test_names_of_files(row_id: str, expected: str) -> None:
    name = file_name(row_id)
    assert name == expected or (expected.endswith("~") and name.startswith(expected))


@given(st.text(), st.text())
def test_names_of_files_are_safe_and_different(one: str, other: str) -> None:
    for step in file_name(one).split("/"):
        assert 0 < len(step.encode()) < 240
        assert not step.startswith(".")
    assert (file_name(one) == file_name(other)) == (one == other)
