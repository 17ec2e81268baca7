"""Directories, patterns and shared files of any kind give the same units of the same rows, whatever their size."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from flashsd_ray.batch.inputs import InputOptions, open_input
from flashsd_ray.batch.inputs.row_ids import UniqueIds
from flashsd_ray.batch.inputs.walking import sorted_names
from flashsd_ray.batch.rows import Clip, Unit
from flashsd_ray.errors import ConfigError, StorageError

ROWS = [
    {"path": "a.mp4"},
    {"path": "sub/b.mp4", "start": 1.5, "end": 4.0},
    {"path": "/abs/c.mp4", "id": "own", "prompt": "Who?"},
    {"path": "s3://bucket/d.mp4", "prompts": ["Who?", "Where?"], "source": "web", "score": 0.5},
]


def clips(*sources: Path | str, **options: Any) -> list[Clip]:
    return list(open_input([str(source) for source in sources], InputOptions(**options)).clips())


def make_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_directory_gives_the_media_below_it_in_order(tmp_path: Path) -> None:
    make_files(tmp_path, "b.mp4", "a/2.MKV", "a/10.png", "notes.txt", ".hidden.mp4", ".cache/x.mp4", "a.mp4")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = clips(tmp_path)
    assert [clip.row_id for clip in found] == ["a.mp4", "a/10.png", "a/2.MKV", "b.mp4"]
    assert found[1].source == str(tmp_path / "a/10.png")


def test_a_directory_is_listed_only_as_far_as_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        make_files(tmp_path, f"{number:02}/clip.mp4")
    listed: list[str] = []
    scan = os.scandir

    def counted(path: str) -> Any:
        listed.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", counted)
    units = open_input([str(tmp_path)]).units(2)
    assert [clip.row_id for clip in next(units).clips] == ["00/clip.mp4", "01/clip.mp4"]
    assert len(listed) <= 4


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["x.mp4"]),
        ("**/*.mp4", ["a/b/z.mp4", "a/y.mp4", "x.mp4"]),
        ("a/*.mp4", ["y.mp4"]),
        ("*/*.mp4", ["a/y.mp4"]),
        ("a/**", ["b/z.mp4", "y.mp4"]),
        ("[xq].mp?", ["x.mp4"]),
        ("**/b/*", ["a/b/z.mp4"]),
        ("nothing*", []),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    make_files(tmp_path, "x.mp4", "a/y.mp4", "a/b/z.mp4")
    assert [clip.row_id for clip in clips(f"{tmp_path}/{pattern}")] == expected


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    make_files(tmp_path, "clip[1].mp4", "clip1.mp4")
    assert [clip.row_id for clip in clips(tmp_path / "clip[1].mp4")] == ["clip[1].mp4"]


def test_ids_are_the_same_whether_the_shell_expands_a_pattern_or_not(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.mp4", "b/1.mp4")
    expanded = [clip.row_id for clip in clips(tmp_path / "a/1.mp4", tmp_path / "b/1.mp4")]
    assert expanded == [clip.row_id for clip in clips(f"{tmp_path}/*/1.mp4")] == ["a/1.mp4", "b/1.mp4"]


def test_two_directories_keep_their_files_apart(tmp_path: Path) -> None:
    make_files(tmp_path, "one/1.mp4", "two/1.mp4")
    assert [clip.row_id for clip in clips(tmp_path / "one", tmp_path / "two")] == ["one/1.mp4", "two/1.mp4"]


def expected_clips(directory: Path) -> list[Clip]:
    return [
        Clip(row_id="a.mp4", source=f"{directory}/a.mp4"),
        Clip(row_id="sub/b.mp4@1.5-4", source=f"{directory}/sub/b.mp4", start_s=1.5, end_s=4.0),
        Clip(row_id="own", source="/abs/c.mp4", prompts=("Who?",)),
        Clip(
            row_id="s3://bucket/d.mp4?72ed2833",
            source="s3://bucket/d.mp4",
            prompts=("Who?", "Where?"),
            extra={"source": "web", "score": 0.5},
        ),
    ]


def test_json_lines(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "m.jsonl", ROWS)
    assert clips(tmp_path / "m.jsonl") == expected_clips(tmp_path)


def test_packed_json_lines(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "m.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    assert clips(tmp_path / "m.jsonl.gz") == expected_clips(tmp_path)


def test_csv(tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["path", "id", "start", "end", "prompt", "prompts", "source", "score"])
    writer.writeheader()
    writer.writerows(row | ({"prompts": json.dumps(row["prompts"])} if "prompts" in row else {}) for row in ROWS)
    (tmp_path / "m.csv").write_text("\ufeff" + text.getvalue())
    *first, last = clips(tmp_path / "m.csv")
    *expected, expected_last = expected_clips(tmp_path)
    assert first == expected
    assert last.prompts == expected_last.prompts
    assert last.extra == {"source": "web", "score": "0.5"}


def test_parquet(tmp_path: Path) -> None:
    names = ["path", "id", "start", "end", "prompt", "prompts", "source", "score"]
    full = [{name: row.get(name) for name in names} for row in ROWS]
    parquet.write_table(pa.Table.from_pylist(full), tmp_path / "m.parquet")
    assert clips(tmp_path / "m.parquet") == expected_clips(tmp_path)


BAD_ROWS = {
    b'{"path": "a.mp4"': "no line of JSON",
    b"[1]": "must be an object",
    b"\xff\xfe": "no line of JSON",
    b'{"id": "x"}': "path must be a text",
    b'{"path": ""}': "path must be a text",
    b'{"path": 5}': "path must be a text",
    b'{"path": "a\\u0000.mp4"}': "zero character",
    b'{"path": "\\ud800.mp4"}': "path is not UTF-8",
    b'{"path": "a.mp4", "start": -1}': "start must be seconds",
    b'{"path": "a.mp4", "start": "soon"}': "start must be seconds",
    b'{"path": "a.mp4", "start": true}': "start must be seconds",
    b'{"path": "a.mp4", "end": 1e999}': "end must be seconds",
    b'{"path": "a.mp4", "start": 5, "end": 5}': "end (5) must lie after start (5)",
    b'{"path": "a.mp4", "prompt": 7}': "prompt must be a text",
    b'{"path": "a.mp4", "prompt": "a", "prompts": ["b"]}': "not both",
    b'{"path": "a.mp4", "prompts": "b"}': "prompts must be a list",
    b'{"path": "a.mp4", "prompts": [" "]}': "every one of prompts",
    b'{"path": "a.mp4", "id": [1]}': "id must be text",
    b"[" * 200_000: "no line of JSON",
    b'{"path": "' + b"a" * 2**20 + b'"}': "longer than 1048576 bytes",
}


def test_bad_rows_become_clips_with_a_problem_and_the_others_stay(tmp_path: Path) -> None:
    lines = [line for bad in BAD_ROWS for line in (bad, b'{"path": "good.mp4"}', b"")]
    (tmp_path / "m.jsonl").write_bytes(b"\n".join(lines))
    found = clips(tmp_path / "m.jsonl")
    assert len(found) == 2 * len(BAD_ROWS)
    assert not any(clip.problem for clip in found[1::2])
    for number, (clip, problem) in enumerate(zip(found[::2], BAD_ROWS.values(), strict=True)):
        assert problem in clip.problem
        assert f"m.jsonl:{3 * number + 1}: " in clip.problem
    assert len({clip.row_id for clip in found}) == len(found)


def test_bad_rows_of_csv(tmp_path: Path) -> None:
    cells = [b"path,prompt", b"a.mp4,hi", b"b.mp4,\xff", b"c.mp4,x,too,many", b"", b'd.mp4,"two', b'lines"', b"e.mp4"]
    long = b'f.mp4,"' + b"x" * 140_000
    (tmp_path / "m.csv").write_bytes(b"\n".join([*cells, long, b"g.mp4,hi"]))
    found = clips(tmp_path / "m.csv")
    assert [Path(clip.source).name for clip in found if not clip.problem] == ["a.mp4", "d.mp4", "e.mp4", "g.mp4"]
    problems = [clip.problem for clip in found if clip.problem]
    assert ["not UTF-8" in problems[0], "4 cells" in problems[1], "field larger" in problems[2]] == [True] * 3


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("m.csv", b"file,prompt\na,b\n", ConfigError),
        ("m.csv", b"", ConfigError),
        ("m.parquet", b"not parquet", StorageError),
    ],
)
def test_a_manifest_that_cannot_be_read_at_all_is_one_error(
    tmp_path: Path, name: str, content: bytes, error: type[Exception]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=name):
        clips(tmp_path / name)


def test_what_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: does not exist"):
        open_input([str(tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="names nothing"):
        open_input([])
    with pytest.raises(ConfigError, match=r"zzz://.*"):
        open_input(["zzz://bucket/x"])
    with pytest.raises(ConfigError, match="format must be one of"):
        open_input([str(tmp_path)], InputOptions(format="xml"))  # type: ignore[arg-type]


def test_the_missing_package_of_a_storage_is_named() -> None:
    with pytest.raises(ConfigError, match=r"az://: .*adlfs"):
        open_input(["az://container/x"])


def test_repeated_ids_are_made_unique_by_their_place(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "m.jsonl", [{"path": "a.mp4"}, {"path": "b.mp4", "id": "a.mp4"}, {"path": "a.mp4"}])
    assert [clip.row_id for clip in clips(tmp_path / "m.jsonl")] == ["a.mp4", "a.mp4#1", "a.mp4#2"]


@given(st.lists(st.sampled_from(["a", "b", "a#1", "a#2", "c", "b#3+"]), max_size=30))
def test_unique_ids_are_unique_and_depend_on_what_came_before_only(ids: list[str]) -> None:
    every = UniqueIds()
    made = [every.unique(row_id) for row_id in ids]
    assert len(set(made)) == len(made)
    half = UniqueIds()
    assert [half.unique(row_id) for row_id in ids[: len(ids) // 2]] == made[: len(ids) // 2]


def test_unique_ids_see_repetitions_after_they_were_put_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashsd_ray.batch.inputs.row_ids.RECENT", 4)
    ids = UniqueIds()
    assert [ids.unique(str(number)) for number in range(50)] == [str(number) for number in range(50)]
    assert [ids.unique(str(number)) for number in range(50)] == [f"{number}#{number + 50}" for number in range(50)]


@given(st.lists(st.text()), st.integers(1, 5))
def test_names_are_sorted_whether_they_fit_into_memory_or_not(names: list[str], in_memory: int) -> None:
    assert list(sorted_names(names, in_memory)) == sorted(names)


@given(st.integers(0, 40), st.integers(1, 50))
def test_units_partition_the_rows(tmp_path_factory: pytest.TempPathFactory, num_rows: int, rows_per_unit: int) -> None:
    path = tmp_path_factory.mktemp("units") / "m.jsonl"
    write_json_lines(path, [{"path": f"{number}.mp4"} for number in range(num_rows)])
    corpus = open_input([str(path)])
    units = list(corpus.units(rows_per_unit))
    assert [clip for unit in units for clip in unit.clips] == list(corpus.clips())
    assert [unit.index for unit in units] == list(range(len(units)))
    assert all(len(unit.clips) == rows_per_unit for unit in units[:-1])
    assert [unit.unit_id for unit in corpus.units(rows_per_unit)] == [unit.unit_id for unit in units]
    assert corpus.count() == num_rows


def test_other_rows_give_other_units(tmp_path: Path) -> None:
    make_files(tmp_path, "a.mp4", "c.mp4")
    before = [unit.unit_id for unit in open_input([str(tmp_path)]).units(1)]
    make_files(tmp_path, "b.mp4")
    after = [unit.unit_id for unit in open_input([str(tmp_path)]).units(1)]
    assert [old == new for old, new in zip(before, after, strict=False)] == [True, False]


def test_an_input_travels_to_another_process(tmp_path: Path) -> None:
    make_files(tmp_path, "a.mp4")
    corpus = open_input([str(tmp_path)])
    travelled = pickle.loads(pickle.dumps(corpus))
    assert list(travelled.units(8)) == list(corpus.units(8))
    assert travelled.fingerprint() == corpus.fingerprint()
    assert corpus.describe() == str(tmp_path)


def test_names_that_are_no_unicode_are_listed(tmp_path: Path) -> None:
    name = os.fsencode(str(tmp_path)) + b"/\xff.mp4"
    with open(name, "wb") as file:  # noqa: PTH123 (a name of bytes)
        file.write(b"x")
    (unit,) = open_input([str(tmp_path)]).units(8)
    assert os.fsencode(unit.clips[0].source) == name
    assert unit.unit_id


def test_a_corpus_in_object_storage() -> None:
    storage = fsspec.filesystem("memory")
    storage.pipe({"/corpus/a/1.mp4": b"x", "/corpus/b.mp4": b"x", "/corpus/m.jsonl": b'{"path": "a/1.mp4"}\n'})
    assert [clip.source for clip in clips("memory://corpus")] == ["memory://corpus/a/1.mp4", "memory://corpus/b.mp4"]
    assert [clip.row_id for clip in clips("memory://corpus/**/*.mp4")] == ["a/1.mp4", "b.mp4"]
    assert clips("memory://corpus/m.jsonl") == [Clip(row_id="a/1.mp4", source="memory://corpus/a/1.mp4")]


def test_a_long_manifest_is_never_held(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_json_lines(path, [{"path": f"clips/{number:06}.mp4", "note": "n" * 200} for number in range(20_000)])
    tracemalloc.start()
    try:
        units = open_input([str(path)]).units(64)
        first: Unit = next(units)
        begun = tracemalloc.get_traced_memory()[1]
        count = len(first.clips) + sum(len(unit.clips) for unit in islice(units, None))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert begun < 8 * 2**20
    assert peak < 12 * 2**20  # the rows alone would have 14 MB; ids are kept as hashes
