"""Laws of the choice of frames, over any timestamps."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import InvalidRequestError, MediaLimitError
from flashsd_ray.media.sampling import Sampling, Timeline, by_count, by_rate, exact

gaps = st.lists(st.integers(1, 5000), max_size=40)
origins = st.integers(-(2**40), 2**40)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    ticks = draw(origins) + np.cumsum([0, *draw(gaps)]).astype(np.int64)
    tick_s = draw(st.sampled_from([Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 30), Fraction(1001, 30000)]))
    return Timeline(ticks=ticks, tick_s=tick_s, end_tick=int(ticks[-1]) + draw(st.integers(1, 5000)))


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    max_frames = draw(st.integers(1, 40))
    start_s = draw(st.floats(0, 200, allow_nan=False))
    length_s = draw(st.none() | st.floats(0.001, 200))
    by = draw(st.booleans())
    return Sampling(
        max_frames=max_frames,
        num_frames=draw(st.integers(1, max_frames)) if by else None,
        fps=None if by else exact(draw(st.floats(0.01, 1000))),
        start_s=exact(start_s),
        end_s=None if length_s is None else exact(start_s) + exact(length_s),
    )


@settings(deadline=None)
@given(timelines(), samplings())
def test_chosen_frames_exist_ascend_and_are_few_enough(timeline: Timeline, sampling: Sampling) -> None:
    chosen = sampling.choose(timeline)
    assert all(before < after for before, after in pairwise(chosen))
    assert all(0 <= index < len(timeline.ticks) for index in chosen)
    assert len(chosen) <= (sampling.num_frames or sampling.max_frames)


@settings(deadline=None)
@given(timelines(), samplings())
def test_frames_appear_within_the_range_or_the_one_on_display_is_taken(timeline: Timeline, sampling: Sampling) -> None:
    origin = int(timeline.ticks[0])
    appear_s = [(int(tick) - origin) * timeline.tick_s for tick in timeline.ticks]
    within = [
        k for k, s in enumerate(appear_s) if s >= sampling.start_s and (sampling.end_s is None or s < sampling.end_s)
    ]
    chosen = sampling.choose(timeline)
    if within:
        assert set(chosen) <= set(within)
        assert chosen[0] == within[0]
    elif sampling.start_s < (timeline.end_tick - origin) * timeline.tick_s:
        assert chosen == [max(k for k, s in enumerate(appear_s) if s < sampling.start_s)]
    else:
        assert chosen == []


@settings(deadline=None)
@given(timelines(), st.integers(1, 80))
def test_by_count_gives_as_many_as_there_are_with_both_ends(timeline: Timeline, num_frames: int) -> None:
    chosen = by_count(timeline.ticks, num_frames)
    assert len(chosen) == min(num_frames, len(timeline.ticks))
    assert chosen[0] == 0
    if num_frames > 1:
        assert chosen[-1] == len(timeline.ticks) - 1


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 3003), origins)
def test_a_constant_rate_gives_linspace_rounded_down(num_source: int, num_frames: int, gap: int, origin: int) -> None:
    ticks = origin + np.arange(num_source, dtype=np.int64) * gap
    count = min(num_frames, num_source)
    expected = [k * (num_source - 1) // max(count - 1, 1) for k in range(count)]
    # One tick of rounding may take the next frame, where an instant falls just before it.
    assert all(0 <= got - want <= 1 for got, want in zip(by_count(ticks, num_frames), expected, strict=True))
    if gap >= 400:
        assert by_count(ticks, num_frames) == expected


def test_a_constant_rate_gives_what_vllm_takes() -> None:
    for num_source in range(1, 400):
        for num_frames in (1, 2, 4, 8, 16, 24, 32, 64):
            ticks = np.arange(num_source, dtype=np.int64) * 512
            instants = np.linspace(0, num_source - 1, min(num_frames, num_source))
            # linspace lands a hair below a whole number now and then; vLLM then takes the frame before.
            assert by_count(ticks, num_frames) == (instants + 1e-9).astype(int).tolist()


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(1, 40), st.sampled_from([24, 25, 30, 50, 60]))
def test_rounding_of_times_to_milliseconds_changes_no_choice(num_source: int, num_frames: int, rate: int) -> None:
    rounded = np.round(np.arange(num_source) * 1000 / rate).astype(np.int64)
    count = min(num_frames, num_source)
    expected = [k * (num_source - 1) // max(count - 1, 1) for k in range(count)]
    late = [got - want for got, want in zip(by_count(rounded, num_frames), expected, strict=True)]
    assert min(late) >= 0, "an instant that falls on a frame must show that frame"
    assert max(late) <= 1


@settings(deadline=None)
@given(timelines(), st.integers(1, 40), st.integers(-(2**40), 2**40))
def test_by_count_ignores_where_time_begins(timeline: Timeline, num_frames: int, shift: int) -> None:
    assert by_count(timeline.ticks, num_frames) == by_count(timeline.ticks + shift, num_frames)


@settings(deadline=None)
@given(timelines(), st.fractions(Fraction(50), 10_000, max_denominator=50), st.integers(1, 40))
def test_by_rate_shows_every_instant(timeline: Timeline, step: Fraction, max_frames: int) -> None:
    ticks, end = timeline.ticks, timeline.end_tick
    first = int(ticks[0])
    chosen = by_rate(ticks, end, step, max_frames)
    span = int(ticks[-1]) - first
    lateness = 1 if len(ticks) > 1 and span >= 8 * (len(ticks) - 1) else 0
    count = int((end - first) / step) + 1
    later = [first + int(k * step) + lateness for k in range(1, count)]
    shown = sorted({0} | {int(np.searchsorted(ticks, at, side="right")) - 1 for at in later if at < end})
    assert chosen == (shown if len(shown) <= max_frames else by_count(ticks, max_frames))


@pytest.mark.parametrize("fps", [0.1, 0.5, 1, 2, 4, 29.97, 60])
def test_by_rate_takes_the_frame_of_each_instant_of_a_constant_rate(fps: float) -> None:
    ticks = np.arange(300, dtype=np.int64) * 512  # 10 s at 30 frames a second
    chosen = by_rate(ticks, 300 * 512, 1 / (exact(fps) * Fraction(1, 15360)), 1000)
    step = 30 / exact(fps)
    assert chosen == sorted({int(k * step) for k in range(600) if k * step < 300})


def test_by_rate_spreads_max_frames_over_everything_when_the_rate_asks_for_more() -> None:
    ticks = np.arange(1000, dtype=np.int64) * 512
    assert by_rate(ticks, 512_000, Fraction(512), 4) == [0, 333, 666, 999]


def test_by_rate_shows_a_long_last_frame() -> None:
    ticks = np.array([0, 9_500], dtype=np.int64)
    assert by_rate(ticks, 12_000, Fraction(1000), 10) == [0, 1]


def test_sampling_by_time_follows_a_variable_rate() -> None:
    # 90 frames in the first second, 9 in the following nine.
    ticks = np.concatenate([np.arange(90) * 11, 1000 + np.arange(9) * 1000]).astype(np.int64)
    assert by_count(ticks, 9) == [0, 90, 91, 92, 93, 94, 95, 96, 98]


class TestResolve:
    """What a call leaves open comes from the config; what it gets wrong is said."""

    def test_the_call_wins_over_the_config(self) -> None:
        config = MediaConfig(num_frames=5, fps=2.0)
        assert Sampling.resolve(config, None, None, None, None).fps == 2
        assert Sampling.resolve(config, 3, None, None, None).num_frames == 3
        assert Sampling.resolve(config, 3, None, None, None).fps is None
        assert Sampling.resolve(config, None, 0.1, None, None).fps == Fraction(1, 10)
        assert Sampling.resolve(MediaConfig(num_frames=5), None, None, None, None).num_frames == 5

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, None, None, None), "num_frames must be at least 1, got 0"),
            ((4, 1.0, None, None), "exclude each other"),
            ((None, 0.0, None, None), "fps must be positive, got 0.0"),
            ((None, float("nan"), None, None), "fps must be positive, got nan"),
            ((None, None, -1.0, None), "start_s must be 0 or more, got -1.0"),
            ((None, None, float("inf"), None), "start_s must be 0 or more, got inf"),
            ((None, None, 2.0, 2.0), r"end_s must lie after start_s \(2\), got 2"),
            ((None, None, None, float("nan")), "end_s must lie after"),
        ],
    )
    def test_a_wrong_argument_is_refused(self, arguments: tuple[float | None, ...], message: str) -> None:
        with pytest.raises(InvalidRequestError, match=message):
            Sampling.resolve(MediaConfig(), *arguments)  # type: ignore[arg-type]

    def test_more_frames_than_allowed_are_refused(self) -> None:
        with pytest.raises(MediaLimitError, match=r"num_frames is 129; media.max_frames allows 128"):
            Sampling.resolve(MediaConfig(), 129, None, None, None)
