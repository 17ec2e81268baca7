"""``flashsd`` as people use it: every format, every way to fail, several inputs at once.

Obligations: the exit code and one line on standard error say what went wrong and never show a traceback; a broken
input costs nobody else; whatever drafts, batches or formats, the tokens are those of plain decoding (float32).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Command, Outcome
from tests.media_files import make_picture

EXACT = ("--dtype", "float32", "--max-new-tokens", "24")
KEYS = {
    "path",
    "paths",
    "text",
    "token_ids",
    "num_new_tokens",
    "num_prompt_tokens",
    "tau",
    "rounds",
    "accepted_per_position",
    "finish_reason",
    "model",
    "drafter",
    "compressor",
    "dtype",
    "device",
    "seconds",
    "start_s",
    "end_s",
}


def objects(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def one(outcome: Outcome) -> dict[str, Any]:
    (described,) = objects(outcome)
    return described


def assert_error(outcome: Outcome, code: int, *parts: str) -> None:
    """It ended with one line of explanation and without output."""
    assert outcome.code == code
    (line,) = outcome.errors
    assert line.startswith("flashsd: error: ")
    assert all(part in line for part in parts), line
    assert outcome.out == ""


def test_a_video_becomes_one_line_of_text(flashsd: Command, clip: Path) -> None:
    outcome = flashsd("caption", clip, *EXACT)
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.endswith("\n")
    assert outcome.out.strip()


def test_json_holds_everything_that_is_known(flashsd: Command, clip: Path) -> None:
    described = one(flashsd("caption", clip, *EXACT, "--format", "json"))
    assert described.keys() >= KEYS
    assert described["path"] == str(clip)
    assert described["num_new_tokens"] == len(described["token_ids"]) == 24
    assert described["finish_reason"] == "length"
    assert described["tau"] == pytest.approx(23 / described["rounds"])
    assert sum(described["accepted_per_position"]) + described["rounds"] >= 23
    assert described["seconds"].keys() >= {"encode", "prefill", "draft", "verify", "decode"}
    assert all(seconds >= 0 for seconds in described["seconds"].values())
    assert (described["model"], described["dtype"], described["device"]) == ("demo", "float32", "cpu")
    assert described["text"] in flashsd("caption", clip, *EXACT).out


def test_whatever_drafts_the_tokens_are_the_same(flashsd: Command, clip: Path) -> None:
    variants = ["--drafter none", "--drafter lookup", "--draft-length 0", "--draft-length 3", "--batch-size 4"]
    found = [one(flashsd("caption", clip, *EXACT, "--format", "json", *words.split())) for words in variants]
    assert len({tuple(described["token_ids"]) for described in found}) == 1
    assert found[0]["tau"] == found[2]["tau"] == 1.0


def test_sampling_depends_on_the_seed_alone(flashsd: Command, clip: Path) -> None:
    def tokens(*words: str) -> list[int]:
        sampling = ("--temperature", "1.5", "--top-p", "0.95", "--top-k", "50", *words)
        return one(flashsd("caption", clip, *EXACT, "--format", "json", *sampling))["token_ids"]  # type: ignore[no-any-return]

    assert tokens("--seed", "1") == tokens("--seed", "1", "--drafter", "none")
    assert len({tuple(tokens("--seed", str(seed))) for seed in range(4)}) > 1


def test_the_text_ends_before_a_stop_string(flashsd: Command, clip: Path) -> None:
    words = one(flashsd("caption", clip, *EXACT, "--format", "json"))["text"].split()
    described = one(flashsd("caption", clip, *EXACT, "--format", "json", "--stop", words[3], "--stop", "never said"))
    assert described["finish_reason"] == "stop"
    assert words[3] not in described["text"]


def test_several_paths_keep_their_order_in_every_batch_size(flashsd: Command, clips: list[Path]) -> None:
    asked = [*clips[:3], clips[0]]
    found = [objects(flashsd("caption", *asked, *EXACT, "--format", "json", "--batch-size", size)) for size in "14"]
    assert [described["path"] for described in found[0]] == [str(path) for path in asked]
    assert [described["token_ids"] for described in found[0]] == [described["token_ids"] for described in found[1]]
    assert found[0][0]["token_ids"] == found[0][3]["token_ids"]


def test_text_of_several_paths_is_labelled(flashsd: Command, clips: list[Path]) -> None:
    lines = flashsd("caption", clips[0], clips[1], *EXACT).out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(clips[0]), str(clips[1])]


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_a_broken_file_costs_the_others_nothing(
    flashsd: Command, clips: list[Path], tmp_path: Path, batch_size: str
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clips[0].read_bytes()[:5000])
    outcome = flashsd("caption", clips[0], broken, clips[1], *EXACT, "--format", "json", "--batch-size", batch_size)
    assert outcome.code == 1
    assert [json.loads(line)["path"] for line in outcome.out.splitlines()] == [str(clips[0]), str(clips[1])]
    (line,) = outcome.errors
    assert line.startswith(f"flashsd: error: {broken}")


def test_together_is_one_caption_of_all(flashsd: Command, clips: list[Path]) -> None:
    described = one(
        flashsd(
            "caption", *clips[:2], "--together", "--prompt", "Compare.", "--frames", "2", *EXACT, "--format", "json"
        )
    )
    assert described["paths"] == [str(path) for path in clips[:2]]


def test_an_image_can_be_described(flashsd: Command, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(make_picture())
    described = one(flashsd("caption", path, *EXACT, "--format", "json"))
    assert (described["start_s"], described["end_s"]) == (None, None)


def test_more_frames_make_a_longer_prompt(flashsd: Command, clip: Path) -> None:
    def length(*words: str) -> int:
        described = one(
            flashsd("caption", clip, "--dtype", "float32", "--max-new-tokens", "1", "--format", "json", *words)
        )
        return int(described["num_prompt_tokens"])

    assert length("--frames", "2") < length("--frames", "4") < length() == length("--frames", "8")
    assert length("--fps", "1", "--end", "2") == length("--frames", "2")
    assert length("--set", "media.num_frames=2") == length("--frames", "2")


def test_every_segment_has_its_cue(flashsd: Command, clip: Path) -> None:
    words = ("caption", clip, "--dtype", "float32", "--max-new-tokens", "6", "--segment", "2", "--frames", "2")
    found = objects(flashsd(*words, "--format", "json"))
    assert found[0]["start_s"] == 0.0
    assert [described["end_s"] for described in found[:-1]] == [described["start_s"] for described in found[1:]]
    subrip = flashsd(*words, "--format", "srt").out
    cues = [cue.splitlines() for cue in subrip.strip().split("\n\n")]
    assert [cue[0] for cue in cues] == [str(number) for number in range(1, len(found) + 1)]
    assert [cue[2] for cue in cues] == [described["text"] for described in found]
    assert cues[0][1] == "00:00:00,000 --> 00:00:02,000"
    webvtt = flashsd(*words, "--format", "vtt").out
    assert webvtt.startswith("WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.000\n")


def test_output_goes_where_it_is_asked_to_go(flashsd: Command, clips: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    outcome = flashsd("caption", *clips[:2], *EXACT, "--format", "json", "--output", file)
    assert (outcome.code, outcome.out) == (0, "")
    assert len(file.read_text().splitlines()) == 2
    directory = tmp_path / "subtitles"
    assert flashsd("caption", *clips[:2], *EXACT, "--format", "vtt", "--output", f"{directory}/").code == 0
    assert sorted(path.stem for path in directory.iterdir()) == sorted(path.stem for path in clips[:2])
    assert all(path.read_text().startswith("WEBVTT") for path in directory.iterdir())


def test_comparison_says_that_outputs_are_identical(flashsd: Command, clip: Path) -> None:
    outcome = flashsd("caption", clip, *EXACT, "--compare", "--repeats", "2")
    assert outcome.code == 0
    assert "output identical: yes" in outcome.out
    assert "plain decoding" in outcome.out
    assert "tokens/s" in outcome.out
    described = one(flashsd("caption", clip, *EXACT, "--compare", "--repeats", "2", "--format", "json"))
    comparison = described["comparison"]
    assert comparison["output_identical"] is True
    assert comparison["plain"]["tau"] == 1.0
    assert comparison["speedup"]["low"] <= comparison["speedup"]["value"] <= comparison["speedup"]["high"]
    assert comparison["flash"]["tau"] == pytest.approx(described["tau"], rel=0.5)


def test_the_demo_shows_a_caption_and_a_comparison(flashsd: Command, clips: list[Path]) -> None:
    outcome = flashsd("demo", "--repeats", "1", "--clip", clips[-1].name[:8])
    assert outcome.code == 0
    command, caption, *rest = outcome.out.splitlines()
    assert command.startswith("$ flashsd caption ")
    assert len(caption.split()) > 3
    assert any(line.startswith("output identical: ") for line in rest)
    assert flashsd("demo", "--list").out.split() == [path.name for path in clips]
    assert_error(flashsd("demo", "--clip", "nothing"), 2, "no clips are called 'nothing'", clips[0].name)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--prmpt", "x"], ["unknown option --prmpt", "--prompt"]),
        (["--model", "dmo"], ["unknown model 'dmo'", "'demo'"]),
        (["--drafter", "blok"], ["unknown drafter 'blok'", "did you mean 'block'?", "lookup"]),
        (["--compressor", "latnt"], ["unknown compressor 'latnt'", "did you mean 'latent'?", "pool"]),
        (["--set", "model.nmae=demo"], ["unknown setting 'model.nmae'", "name"]),
        (["--set", "media.max_bytes=many"], ["media.max_bytes must be a number"]),
        (["--set", "model"], ["section.name=value"]),
        (["--temperature", "-1"], ["temperature must be in 0..100"]),
        (["--top-p", "0"], ["top_p must be in (0, 1]"]),
        (["--stop", ""], ["stop string"]),
        (["--max-new-tokens", "0"], ["--max-new-tokens"]),
        (["--max-new-tokens", "99999", "--dtype", "float32"], ["scheduling.max_new_tokens"]),
        (["--frames", "500"], ["num_frames is 500", "media.max_frames"]),
        (["--start", "100"], ["start_s"]),
        (["--start", "2", "--end", "1"], ["--end must lie after --start"]),
        (["--device", "abacus"], ["unknown device 'abacus'"]),
        (["--compare", "--draft-length", "0"], ["--compare needs speculation"]),
        (["--compare", "--format", "srt"], ["--compare prints a table"]),
        (["--compare", "--batch-size", "2"], ["one caption at a time"]),
        (["--together", "--segment", "2"], ["--segment and --together"]),
        (["--output", "/nowhere/at/all/captions.txt"], ["/nowhere/at/all"]),
    ],
)
def test_mistakes_cost_one_line(flashsd: Command, clip: Path, words: list[str], parts: list[str]) -> None:
    assert_error(flashsd("caption", clip, *words), 2, *parts)


def test_inputs_that_cannot_be_captioned(flashsd: Command, tmp_path: Path) -> None:
    empty, text, directory = tmp_path / "empty.mp4", tmp_path / "notes.mp4", tmp_path / "frames"
    empty.touch()
    text.write_text("this is no video")
    directory.mkdir()
    assert_error(flashsd("caption", tmp_path / "none.mp4"), 2, "none.mp4", "does not exist")
    assert_error(flashsd("caption", empty), 2, "empty.mp4", "is empty")
    assert_error(flashsd("caption", text), 2, "notes.mp4")
    assert_error(flashsd("caption", directory), 2, "frames")
    outcome = flashsd("caption", empty, text, tmp_path / "none.mp4")
    assert outcome.code == 2
    assert len(outcome.errors) == 3


def test_an_input_is_never_overwritten(flashsd: Command, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip.read_bytes())
    assert_error(flashsd("caption", path, "--output", path), 2, "would overwrite the input")
    other = tmp_path / "other" / "clip.mp4"
    assert_error(flashsd("caption", path, other, "--output", f"{tmp_path}/out/"), 2, "2 inputs would be written to")
    assert path.read_bytes() == clip.read_bytes()


def test_subtitles_of_several_videos_need_a_directory(flashsd: Command, clips: list[Path], tmp_path: Path) -> None:
    assert_error(flashsd("caption", *clips[:2], "--format", "srt"), 2, "give --output a directory")


def test_debug_shows_the_traceback(flashsd: Command) -> None:
    with pytest.raises(Exception, match="section"):
        flashsd("caption", "a.mp4", "--set", "model", "--debug")


def test_a_bug_is_one_line_too(flashsd: Command, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("flashsd_ray.cli.loading.load_engine", fail)
    assert_error(flashsd("caption", clip), 70, "unexpected RuntimeError: boom", "--debug")


def test_without_a_verb_there_is_help(flashsd: Command) -> None:
    outcome = flashsd()
    assert outcome.code == 2
    assert "caption" in outcome.out
