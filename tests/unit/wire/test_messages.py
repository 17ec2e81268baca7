"""Protobuf messages and types say the same; what no type can hold is refused with its field."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import MediaConfig, ServingConfig
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.errors import FlashSDError, InvalidRequestError, OverloadedError, UnavailableError
from flashsd_ray.speculation.stats import RoundStats, SpeculationStats
from flashsd_ray.types import FinishReason, SamplingParams, TokenLogprob, Turn, VisualInput
from flashsd_ray.wire.messages.answers import event_messages, response_message
from flashsd_ray.wire.messages.conversation import outline_of
from flashsd_ray.wire.messages.frames import raw_image, video_of_frames
from flashsd_ray.wire.messages.parsing import Unreadable, tolerant_parser
from flashsd_ray.wire.messages.sampling import sampling_params
from flashsd_ray.wire.messages.status import status_message
from flashsd_ray.wire.v1 import captioning_pb2 as pb

SERVING, MEDIA = ServingConfig(), MediaConfig()
UINT32 = st.integers(0, 2**32 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

SAMPLINGS = st.builds(
    SamplingParams,
    temperature=st.integers(0, 10_000).map(lambda n: n / 100),
    top_p=st.integers(1, 1000).map(lambda n: n / 1000),
    top_k=UINT32,
    max_new_tokens=st.integers(1, 2**32 - 1),
    seed=st.integers(0, 2**64 - 1),
    stop=st.lists(TEXTS.filter(bool), max_size=16).map(tuple),
    ignore_eos=st.booleans(),
    logprobs=st.none() | st.integers(0, 20),
)


def _sampling_message(sampling: SamplingParams) -> pb.Sampling:
    return pb.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_new_tokens=sampling.max_new_tokens,
        seed=sampling.seed,
        stop=sampling.stop,
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.logprobs,
    )


def _over_the_wire(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@given(SAMPLINGS)
def test_sampling_comes_over_as_it_was_meant(sampling: SamplingParams) -> None:
    message = _over_the_wire(_sampling_message(sampling))
    assert sampling_params(message, SERVING, max_new_tokens=7) == sampling


def test_an_empty_sampling_is_the_servers_choice() -> None:
    assert sampling_params(pb.Sampling(), SERVING, max_new_tokens=7) == SamplingParams(max_new_tokens=7)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_sampling_or_a_typed_error(data: bytes) -> None:
    message = tolerant_parser(pb.Sampling)(data)
    if isinstance(message, Unreadable):
        assert "flashsd.v1.Sampling" in str(message.error)
        return
    assert isinstance(message, pb.Sampling)
    problem = _problem(lambda: sampling_params(message, SERVING, max_new_tokens=7, where="ask.sampling"))
    assert problem == "" or problem.startswith("ask.sampling")


def _problem(convert: Callable[[], object]) -> str:
    """What the typed error says; nothing where there is none."""
    try:
        convert()
    except InvalidRequestError as error:
        return str(error)
    return ""


VISUALS = st.builds(
    lambda height, width, value: VisualInput(
        kind="image", frames=np.full((1, height, width, 3), value, np.uint8), timestamps_s=np.zeros(1)
    ),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 255),
)
TURNS = st.lists(
    st.builds(
        Turn,
        role=st.sampled_from(["system", "user", "assistant"]),
        parts=st.lists(TEXTS | VISUALS, min_size=1, max_size=5).map(tuple),
    ),
    min_size=1,
    max_size=4,
)


def _turn_message(turn: Turn) -> pb.Turn:
    parts = [pb.Part(text=part) if isinstance(part, str) else _image_part(part) for part in turn.parts]
    return pb.Turn(role=f"ROLE_{turn.role.upper()}", parts=parts)  # type: ignore[arg-type]


def _image_part(visual: VisualInput) -> pb.Part:
    _, height, width, _ = visual.frames.shape
    return pb.Part(image=pb.Image(raw=pb.RawFrame(width=width, height=height, rgb=visual.frames.tobytes())))


@given(TURNS)
def test_a_conversation_comes_over_part_by_part(turns: list[Turn]) -> None:
    message = _over_the_wire(pb.CaptionRequest(turns=map(_turn_message, turns)))
    outline = outline_of(message.turns, SERVING, MEDIA)
    visuals = [raw_image(picture.message.raw, picture.where, MEDIA) for picture in outline.pictures]  # type: ignore[union-attr]
    assert list(map(_said, outline.filled(visuals))) == list(map(_said, turns))


def _said(turn: Turn) -> tuple[str, list[str]]:
    return turn.role, [part if isinstance(part, str) else part.digest for part in turn.parts]


@given(st.binary(max_size=80))
def test_any_bytes_are_a_conversation_or_a_typed_error(data: bytes) -> None:
    message = tolerant_parser(pb.CaptionRequest)(data)
    if isinstance(message, pb.CaptionRequest):
        problem = _problem(lambda: outline_of(message.turns, SERVING, MEDIA))
        assert problem == "" or problem.startswith("turns")


def test_a_picture_knows_the_field_that_holds_it() -> None:
    parts = [pb.Part(text="look"), pb.Part(video=pb.Video(url="u"))]
    outline = outline_of([pb.Turn(parts=[pb.Part(text="x")]), pb.Turn(parts=parts)], SERVING, MEDIA)
    assert [picture.where for picture in outline.pictures] == ["turns[1].parts[1].video"]


TOKENS = st.builds(
    TokenLogprob,
    token_id=UINT32,
    logprob=st.floats(max_value=0, allow_nan=False),
    text=TEXTS,
    top=st.lists(
        st.builds(TokenLogprob, token_id=UINT32, logprob=st.floats(max_value=0, allow_nan=False)), max_size=3
    ).map(tuple),
)
CHUNKS = st.builds(
    Chunk,
    request_id=st.just("r"),
    text=TEXTS,
    token_ids=st.lists(UINT32, max_size=4).map(tuple),
    num_accepted=st.integers(0, 4),
    logprobs=st.lists(TOKENS, max_size=2).map(tuple),
)
ROUNDS = st.lists(
    st.builds(
        RoundStats,
        num_draft_tokens=st.just(4),
        num_accepted_tokens=st.integers(0, 4),
        num_new_tokens=st.integers(1, 5),
    ),
    max_size=5,
)


@given(
    st.lists(CHUNKS, max_size=4),
    st.sampled_from([FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED]),
    ROUNDS,
)
def test_a_stream_and_the_whole_answer_say_the_same(
    chunks: list[Chunk], reason: FinishReason, rounds: list[RoundStats]
) -> None:
    stats = sum(map(SpeculationStats.of_round, rounds), SpeculationStats.of_prefill())
    last = Chunk(request_id="r", finish_reason=reason, num_prompt_tokens=9, num_cached_tokens=4, stats=stats)
    events = [_over_the_wire(event) for chunk in (*chunks, last) for event in event_messages(chunk)]
    whole = _over_the_wire(response_message(joined([*chunks, last])))
    deltas, finished = [event.delta for event in events[:-1]], events[-1].finished
    assert {event.WhichOneof("event") for event in events[:-1]} <= {"delta"}
    assert "".join(delta.text for delta in deltas) == whole.text == "".join(chunk.text for chunk in chunks)
    assert [one for delta in deltas for one in delta.token_ids] == list(whole.token_ids)
    assert finished.finish_reason == whole.finish_reason
    assert pb.FinishReason.Name(whole.finish_reason) == f"FINISH_REASON_{reason.name}"
    assert finished.statistics == whole.statistics
    assert _totals(whole.statistics) == (9, 4, stats.num_new_tokens, stats.rounds, stats.num_accepted_tokens)
    assert math.isclose(whole.statistics.tau, stats.tau)
    assert dict(whole.statistics.seconds) == stats.seconds


def _totals(statistics: pb.Statistics) -> tuple[int, ...]:
    return (
        statistics.num_prompt_tokens,
        statistics.num_cached_tokens,
        statistics.num_new_tokens,
        statistics.rounds,
        statistics.num_accepted_tokens,
    )


@given(st.lists(TOKENS, max_size=3))
def test_log_probabilities_come_over_unchanged(tokens: list[TokenLogprob]) -> None:
    caption = Caption(
        request_id="r",
        text="",
        token_ids=(),
        finish_reason=FinishReason.STOP,
        num_prompt_tokens=0,
        stats=SpeculationStats(),
        logprobs=tuple(tokens),
    )
    message = _over_the_wire(response_message(caption))
    assert tuple(map(_token, message.logprobs)) == tuple(tokens)


def _token(message: pb.TokenLogprob) -> TokenLogprob:
    top = tuple(map(_token, message.top))
    return TokenLogprob(token_id=message.token_id, logprob=message.logprob, text=message.text, top=top)


def _frame(value: int) -> VisualInput:
    return VisualInput(kind="image", frames=np.full((1, 2, 2, 3), value, np.uint8), timestamps_s=np.zeros(1))


def test_frames_without_times_follow_each_other_at_the_configured_rate() -> None:
    video = video_of_frames([_frame(n) for n in range(3)], [], "video", MediaConfig(directory_fps=10))
    assert video.timestamps_s.tolist() == [0.0, 0.1, 0.2]
    assert video.duration_s == pytest.approx(0.3)
    assert video.frames[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("times", [[0.0, math.nan], [0.0, math.inf], [-1.0, 0.0], [1.0, 0.0]])
def test_times_that_are_none_are_refused(times: list[float]) -> None:
    with pytest.raises(InvalidRequestError, match="timestamps_s"):
        video_of_frames([_frame(0), _frame(1)], times, "video", MEDIA)


@given(st.floats(0, 1e6), st.sampled_from([OverloadedError, UnavailableError]))
def test_a_status_says_when_to_come_again(seconds: float, kind: type[OverloadedError] | type[UnavailableError]) -> None:
    status = _over_the_wire(status_message(kind("later", retry_after_s=seconds)))
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToNanoseconds() / 1e9 == pytest.approx(seconds, abs=1e-8)


@given(st.text(max_size=3000))
def test_a_status_fits_into_trailers_whatever_the_message(text: str) -> None:
    status = status_message(FlashSDError(text))
    assert len(status.message.encode()) <= 1004
    assert not status.details
