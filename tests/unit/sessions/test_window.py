"""Laws of the window policy, and of the array that follows it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import SessionsConfig
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.sessions.frame_buffer import FrameBuffer, Snapshot
from flashsd_ray.sessions.window import WindowPolicy, window_policy
from tests.unit.sessions.harness import picture


@st.composite
def policies(draw: st.DrawFn) -> WindowPolicy:
    max_frames = draw(st.integers(1, 12))
    keep_first = draw(st.integers(0, max_frames - 1))
    return WindowPolicy(
        keep_first=keep_first, max_frames=max_frames, drop_frames=draw(st.integers(1, max_frames - keep_first))
    )


def windows(policy: WindowPolicy, num_frames: int) -> list[list[int]]:
    """What is held after each frame, by the policy alone."""
    held: list[int] = []
    history = []
    for number in range(num_frames):
        del held[policy.dropped(len(held))]
        held.append(number)
        history.append(list(held))
    return history


@given(policies(), st.integers(1, 60))
def test_windows_are_bounded_ordered_and_keep_the_first_and_the_newest(policy: WindowPolicy, num_frames: int) -> None:
    for newest, held in enumerate(windows(policy, num_frames)):
        assert len(held) <= policy.max_frames
        assert held == sorted(set(held))
        assert held[-1] == newest
        first = min(policy.keep_first, newest + 1)
        assert held[:first] == list(range(first))
        recent = held[policy.keep_first :]
        assert recent == list(range(newest + 1 - len(recent), newest + 1))
        safe = min(policy.safe_frames, newest + 1)
        assert held[-safe:] == list(range(newest + 1 - safe, newest + 1))


@given(policies(), st.integers(1, 60))
def test_what_is_behind_a_gap_is_prefilled_again_only_once_in_drop_frames(
    policy: WindowPolicy, num_frames: int
) -> None:
    history = windows(policy, num_frames)
    drops = [k for k in range(1, num_frames) if history[k][: len(history[k - 1])] != history[k - 1]]
    assert all(later - earlier >= policy.drop_frames for earlier, later in itertools.pairwise(drops))
    prefilled = sum(len(now) for k, now in enumerate(history) if k in drops) + num_frames
    assert prefilled <= num_frames * (1 + policy.max_frames / policy.drop_frames) + policy.max_frames


@given(policies(), st.integers(1, 40), st.integers(0, 40))
def test_snapshots_show_what_the_policy_kept_and_stay_as_they_are(
    policy: WindowPolicy, num_before: int, num_after: int
) -> None:
    buffer = FrameBuffer(policy)
    taken: list[tuple[Snapshot, list[int]]] = []
    expected = windows(policy, num_before + num_after)
    for number in range(num_before + num_after):
        buffer.prepare(picture(number))
        buffer.push(picture(number), number / 2)
        taken.append((buffer.snapshot(), expected[number]))
        assert buffer.num_held + buffer.num_dropped == number + 1
    for snapshot, held in taken:
        assert snapshot.frames[:, 0, 0, 0].tolist() == held
        assert snapshot.times_s.tolist() == [number / 2 for number in held]
    for (one, numbers), (other, later) in itertools.pairwise(taken):
        assert (one.generation == other.generation) == (later[: len(numbers)] == numbers)


def test_snapshots_cannot_be_written_to_and_copy_nothing() -> None:
    buffer = FrameBuffer(WindowPolicy(keep_first=0, max_frames=4, drop_frames=2))
    buffer.prepare(picture())
    buffer.push(picture(), 0.0)
    first = buffer.snapshot()
    buffer.push(picture(), 1.0)
    assert np.shares_memory(first.frames, buffer.snapshot().frames)
    with pytest.raises(ValueError, match="read-only"):
        first.frames[0] = 1


def test_frames_of_another_size_are_refused() -> None:
    buffer = FrameBuffer(WindowPolicy(keep_first=0, max_frames=4, drop_frames=2))
    buffer.prepare(picture(size=8))
    with pytest.raises(InvalidRequestError, match="9x9 pixels; the frames of this session have 8x8"):
        buffer.prepare(picture(size=9))


@given(keep_first=st.integers(0, 4), max_frames=st.integers(0, 48), context_frames=st.none() | st.integers(1, 100))
def test_the_policy_of_a_session_stays_within_all_limits(
    keep_first: int, max_frames: int, context_frames: int | None
) -> None:
    limits = SessionsConfig(keep_first=4, max_frames=48, drop_frames=16)
    policy = window_policy(limits, keep_first=keep_first, max_frames=max_frames, context_frames=context_frames)
    assert 1 <= policy.max_frames <= min(max_frames or 48, context_frames or 48)
    assert policy.keep_first <= (keep_first or limits.keep_first)
    assert 1 <= policy.drop_frames <= limits.drop_frames


def test_the_settings_that_ship_hold_where_nothing_is_asked_for() -> None:
    policy = window_policy(SessionsConfig(), keep_first=0, max_frames=0, context_frames=None)
    assert policy == WindowPolicy(keep_first=4, max_frames=48, drop_frames=16)


@pytest.mark.parametrize("wish", [{"keep_first": 5}, {"max_frames": 49}, {"keep_first": -1}])
def test_a_wish_beyond_the_configuration_is_refused_by_name(wish: dict[str, int]) -> None:
    numbers = {"keep_first": 0, "max_frames": 0, **wish}
    with pytest.raises(InvalidRequestError, match=f"sessions.{next(iter(wish))} allows"):
        window_policy(SessionsConfig(), **numbers, context_frames=None)
