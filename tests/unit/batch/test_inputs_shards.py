"""Tar shards are read by place: samples, their prompts, damage; and the bytes of a clip come from wherever they lie."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest

from flashsd_ray.batch.inputs import InputOptions, open_input
from flashsd_ray.batch.inputs import sources as sources_module
from flashsd_ray.batch.inputs.shards import named_clip
from flashsd_ray.batch.inputs.sources import read_source
from flashsd_ray.batch.rows import Clip, Member
from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import ConfigError, FlashSDError, MediaError, MediaLimitError, RowError
from tests.media_files import make_picture, make_video, shown_numbers

VIDEO = make_video(num_frames=20)
SAMPLES = {
    "0001.mp4": VIDEO,
    "0001.json": json.dumps({"prompt": "Who?", "id": "one", "end": 0.5, "tags": ["x"], "path": "was.mp4"}).encode(),
    "0002.jpg": make_picture("JPEG"),
    "0002.mp4": VIDEO,
    "0003.txt": b"no media",
    "sub/0001.webm": b"damaged",
    "0004.mp4": VIDEO,
    "0004.json": b"{",
    "0005.mp4": VIDEO,
    "0005.json": b'{"start": 3, "end": 1}',
}


def make_shard(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        directory = tarfile.TarInfo("sub")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def clips(path: Path | str) -> list[Clip]:
    return list(open_input([str(path)]).clips())


def test_samples(tmp_path: Path) -> None:
    shard = tmp_path / "shard-000.tar"
    shard.write_bytes(make_shard(SAMPLES))
    first, second, third, fourth, fifth = clips(tmp_path)
    assert (first.row_id, first.prompts, first.end_s) == ("one", ("Who?",), 0.5)
    assert first.extra == {"tags": ["x"], "path": "was.mp4"}
    assert first.source == f"{shard}#0001.mp4"
    assert (second.row_id, second.source) == ("shard-000.tar#0002", f"{shard}#0002.mp4")
    assert third.row_id == "shard-000.tar#sub/0001"
    assert "its JSON cannot be read" in fourth.problem
    assert "must lie after start" in fifth.problem
    with read_source(first, MediaConfig()) as source:
        assert source.content == VIDEO
        assert shown_numbers(source.load(MediaConfig(), num_frames=2, end_s=first.end_s).frames) == [0, 14]


def test_a_member_is_found_again_by_its_name(tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    shard.write_bytes(make_shard(SAMPLES))
    first = clips(shard)[0]
    assert named_clip(first.source).member == first.member
    with pytest.raises(RowError, match="no such member"), read_source(named_clip(f"{shard}#x"), MediaConfig()):
        pass
    assert named_clip("/a/b#c.mp4") == Clip(row_id="/a/b#c.mp4", source="/a/b#c.mp4")


@pytest.mark.parametrize("cut", ["in the data", "in a head", "before the end mark", "at once"])
def test_a_damaged_shard_gives_what_stands_before_and_one_problem(tmp_path: Path, cut: str) -> None:
    whole = make_shard({"a.mp4": VIDEO, "b.mp4": VIDEO})
    second = whole.index(b"b.mp4")
    places = {
        "in the data": second + 700,
        "in a head": second + 100,
        "before the end mark": second + 512 + -(-len(VIDEO) // 512) * 512,
        "at once": 0,
    }
    (tmp_path / "s.tar").write_bytes(whole[: places[cut]])
    *sound, last = clips(tmp_path / "s.tar")
    assert [clip.row_id for clip in sound] == {
        "in the data": ["s.tar#a"],
        "in a head": ["s.tar#a"],
        "before the end mark": ["s.tar#a", "s.tar#b"],
        "at once": [],
    }[cut]
    assert "damaged" in last.problem


def test_a_head_that_was_overwritten_is_noticed(tmp_path: Path) -> None:
    whole = bytearray(make_shard({"a.mp4": VIDEO, "b.mp4": VIDEO, "c.mp4": VIDEO}))
    place = whole.index(b"b.mp4")
    whole[place : place + 20] = b"\xff" * 20
    (tmp_path / "s.tar").write_bytes(whole)
    assert [clip.problem != "" for clip in clips(tmp_path / "s.tar")] == [False, True]


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.tar.gz").write_bytes(b"x")
    with pytest.raises(ConfigError, match="compressed"):
        clips(tmp_path / "s.tar.gz")


def test_a_shard_of_any_name_is_read_when_it_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(make_shard({"a.mp4": VIDEO}))
    corpus = open_input([str(tmp_path / "shard")], InputOptions(format="webdataset"))
    assert [clip.row_id for clip in corpus.clips()] == ["shard#a"]


def test_content_in_object_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = fsspec.filesystem("memory")
    storage.pipe({"/media/a.mp4": VIDEO, "/media/s.tar": make_shard({"b.mp4": VIDEO})})
    found = clips("memory://media")
    assert [clip.row_id for clip in found] == ["a.mp4", "s.tar#b"]
    for in_memory in (2**20, 100):
        monkeypatch.setattr(sources_module, "BYTES_IN_MEMORY", in_memory)
        for clip in found:
            with read_source(clip, MediaConfig()) as source:
                assert isinstance(source.content, bytes) == (in_memory > len(VIDEO))
                assert shown_numbers(source.load(MediaConfig(), num_frames=2).frames) == [0, 19]
    path = str(source.content)
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("clip", "error", "problem"),
    [
        (Clip(row_id="a", source="a.mp4", problem="m.jsonl:3: path is not UTF-8"), RowError, "m.jsonl:3: path is not"),
        (Clip(row_id="a", source="memory://media/none.mp4"), MediaError, "memory://media/none.mp4: does not exist"),
        (Clip(row_id="a", source="memory://media/big.mp4"), MediaLimitError, "media.max_bytes"),
        (
            Clip(
                row_id="a",
                source="memory://media/big.mp4#x",
                member=Member(shard="memory://media/big.mp4", offset=80, size=40),
            ),
            MediaError,
            "is truncated: 20 of 40",
        ),
        (Clip(row_id="a", source="az://c/x.mp4"), ConfigError, "adlfs"),
    ],
)
def test_what_cannot_be_fetched_is_one_error(clip: Clip, error: type[FlashSDError], problem: str) -> None:
    fsspec.filesystem("memory").pipe({"/media/big.mp4": b"x" * 100})
    with pytest.raises(error, match=problem), read_source(clip, MediaConfig(max_bytes=50)):
        pass


def test_messages_about_a_copy_name_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("memory").pipe({"/media/damaged.mp4": VIDEO[: len(VIDEO) // 2]})
    monkeypatch.setattr(sources_module, "BYTES_IN_MEMORY", 10)
    clip = Clip(row_id="a", source="memory://media/damaged.mp4")
    with read_source(clip, MediaConfig()) as source, pytest.raises(MediaError, match=r"^memory://media/damaged.mp4: "):
        source.load(MediaConfig())
