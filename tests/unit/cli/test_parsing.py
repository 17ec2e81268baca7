"""Mistakes on the command line: one line that says what would be right."""

from __future__ import annotations

import pytest

from flashsd_ray.cli.compare import first_difference
from flashsd_ray.cli.loading import check_model_name
from flashsd_ray.cli.main import build_parser
from flashsd_ray.cli.parsing import UsageError, clock_time
from flashsd_ray.cli.terminal import visible
from flashsd_ray.errors import CheckpointError


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("captoin a.mp4", "unknown verb 'captoin'; did you mean caption?"),
        ("caption a.mp4 --prmpt x", "unknown option --prmpt; did you mean --prompt?"),
        ("caption a.mp4 --xyzzy", "unknown option --xyzzy"),
        ("caption", "PATH"),
        ("caption a.mp4 --frames 0", "--frames: must be a whole number above 0, got 0"),
        ("caption a.mp4 --frames many", "--frames: must be a whole number above 0, got 'many'"),
        ("caption a.mp4 --fps inf", "--fps: must be a number above 0, got inf"),
        ("caption a.mp4 --frames 2 --fps 1", "not allowed with argument --frames"),
        ("caption a.mp4 --start 1:2:3:4", "--start: must be seconds or [h:]mm:ss"),
        ("caption a.mp4 --format xml", "invalid choice: 'xml'"),
        ("caption a.mp4 --dtype float16", "invalid choice: 'float16'"),
        ("caption a.mp4 --promp x", "did you mean --prompt?"),
        ("batch videos --ouput out", "unknown option --ouput; did you mean --output?"),
        ("batch videos --ouput=out", "unknown option --ouput; did you mean --output?"),
        ("batch videos --lanes 2", "required: --output"),
        ("bench cancel --requets 3", "unknown option --requets; did you mean --requests?"),
    ],
)
def test_mistakes_are_named(words: str, part: str) -> None:
    with pytest.raises(UsageError) as raised:
        build_parser().parse_args(words.split())
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("1:30", 90.0), ("0:01:30.5", 90.5), ("0", 0.0)])
def test_times_can_be_written_as_people_do(text: str, seconds: float) -> None:
    assert clock_time(text) == seconds


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("dmo", "did you mean 'demo'?"),
        ("llava", "unknown model 'llava'; use demo"),
        ("./nothing/here", "does not exist"),
        ("a/b/c", "does not exist"),
        (__file__, "is a file"),
    ],
)
def test_a_model_that_no_hub_can_have_is_refused_at_once(name: str, part: str) -> None:
    with pytest.raises(CheckpointError, match=r".") as raised:
        check_model_name(name, ["demo"])
    assert part in str(raised.value)


def test_names_that_may_be_right_are_left_to_the_loader(tmp_path: object) -> None:
    for name in ("demo", "owner/name", str(tmp_path)):
        check_model_name(name, ["demo"])


def test_first_difference() -> None:
    assert first_difference((1, 2, 3), (1, 2, 3)) is None
    assert first_difference((1, 2, 3), (1, 9, 3)) == 1
    assert first_difference((1, 2), (1, 2, 3)) == 2
    assert first_difference((), (1,)) == 0


def test_nothing_that_a_model_says_steers_the_terminal() -> None:
    assert visible("a\x1b[2Jb\tc\nd\u20ac") == "a\ufffd[2Jb\tc\nd\u20ac"
