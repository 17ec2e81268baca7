"""Output ends where plain decoding would end it, and text is shown only when it is certain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.speculation.stopping import StopRules, TextStream
from flashsd_ray.types import FinishReason, SamplingParams

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


def from_bytes(token_ids: Sequence[int]) -> str:
    """A byte-level tokenizer; ids from 256 on are special and have no text."""
    return bytes(token_id for token_id in token_ids if token_id < 256).decode("utf-8", errors="replace")


def from_words(token_ids: Sequence[int]) -> str:
    """A SentencePiece-like tokenizer: words carry their space, and a text does not begin with one."""
    return "".join(" abc"[token_id % 4] + "xyz"[token_id % 3] for token_id in token_ids).removeprefix(" ")


@lru_cache
def llama_like() -> Tokenizer:
    """A real SentencePiece-style tokenizer: spaces inside tokens, bytes for characters that it does not know."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abc", "\u2581a", "\u2581b", "ab", "bc"]
    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[("\u2581", "a"), ("\u2581", "b"), ("a", "b"), ("b", "c")],
        unk_token="<unk>",
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to the stop string that completes first, by growing the text one character at a time."""
    for end in range(1, len(text) + 1):
        starts = [end - len(one) for one in stop if text[:end].endswith(one)]
        if starts:
            return text[: min(starts)], True
    return text, False


def stream_all(stream: TextStream, token_ids: Sequence[int]) -> list[str]:
    """Every piece of the text, the last one included."""
    return [*(stream.push(token_id) for token_id in token_ids), stream.finish()]


stops = st.lists(st.text("abé😀 ", min_size=1, max_size=4), max_size=3)


@settings(deadline=None, max_examples=300)
@given(text=st.text("abcdé€😀 ", max_size=30), stop=stops)
@example(text="abababc", stop=["ababc"])
@example(text="xabcd", stop=["bc", "abcd"])
@example(text="xaé", stop=["xaé", "é"])
def test_pieces_join_to_the_text_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    stream = TextStream(from_bytes, stop)
    pieces = stream_all(stream, text.encode())
    assert ("".join(pieces), stream.is_stopped) == cut_at_stop(text, stop)
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(0, 11), max_size=30), st.lists(st.text("abcxyz ", min_size=1, max_size=3), max_size=2))
def test_spaces_between_words_are_kept(token_ids: list[int], stop: list[str]) -> None:
    stream = TextStream(from_words, stop)
    assert ("".join(stream_all(stream, token_ids)), stream.is_stopped) == cut_at_stop(from_words(token_ids), stop)


@settings(deadline=None)
@given(text=st.text("abc é😀", max_size=20), stop=stops)
def test_a_real_tokenizer_streams_its_text(text: str, stop: list[str]) -> None:
    token_ids = llama_like().encode(text).ids
    stream = TextStream(lambda ids: str(llama_like().decode(list(ids))), stop)
    pieces = stream_all(stream, token_ids)
    assert ("".join(pieces), stream.is_stopped) == cut_at_stop(text, stop)


@given(st.lists(st.one_of(st.sampled_from(list("aé😀".encode())), st.integers(0, 300)), max_size=15))
def test_noise_bytes_lose_nothing_but_an_unfinished_character(token_ids: list[int]) -> None:
    pieces = stream_all(TextStream(from_bytes), token_ids)
    assert "".join(pieces) == from_bytes(token_ids).rstrip("\ufffd")


def test_text_never_has_to_be_taken_back() -> None:
    stream = TextStream(from_bytes, ["END"])
    assert [stream.push(byte) for byte in "aENéEND".encode()] == ["a", "", "", "", "ENé", "", "", ""]
    assert stream.is_stopped
    assert stream.push(65) == ""
    assert stream.finish() == ""


def test_half_a_character_is_not_shown_even_at_the_end() -> None:
    stream = TextStream(from_bytes)
    assert [stream.push(byte) for byte in "a😀".encode()[:-1]] == ["a", "", "", ""]
    assert stream.finish() == ""


def test_held_text_is_shown_at_the_end() -> None:
    stream = TextStream(from_bytes, ["abc"])
    assert [stream.push(byte) for byte in b"xab"] == ["x", "", ""]
    assert stream.finish() == "ab"


def test_endless_noise_costs_no_more_per_token() -> None:
    longest = 0

    def counting(token_ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(token_ids))
        return from_bytes(token_ids)

    for noise in ([0xFF], [300], [0xF0, 0x9F]):
        stream = TextStream(counting, ["never"])
        for token_id in noise * 200:
            stream.push(token_id)
        assert stream.push(65).endswith("A")
    assert longest <= 32


def plain_stop(
    token_ids: Sequence[int], sampling: SamplingParams, eos: Sequence[int]
) -> tuple[int, str, FinishReason | None]:
    """How many tokens are kept, their text and why it ends, token after token."""
    for count in range(1, len(token_ids) + 1):
        head = token_ids[:count]
        text, is_stopped = cut_at_stop(from_bytes(head), sampling.stop)
        if head[-1] in sampling.stop_token_ids or (head[-1] in eos and not sampling.ignore_eos):
            return count, cut_at_stop(from_bytes(head[:-1]), sampling.stop)[0], STOP
        if is_stopped:
            return count, text, STOP
        if count == sampling.max_new_tokens:
            return count, text, LENGTH
    return len(token_ids), "", None


@settings(deadline=None, max_examples=200)
@given(
    token_ids=st.lists(st.sampled_from([97, 98, 99, 256, 257]), max_size=20),
    sizes=st.lists(st.integers(1, 5), min_size=20, max_size=20),
    sampling=st.builds(
        SamplingParams,
        max_new_tokens=st.integers(1, 15),
        stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=2).map(tuple),
        stop_token_ids=st.sampled_from([(), (256,), (99,), (97, 257)]),
        ignore_eos=st.booleans(),
    ),
    eos=st.sampled_from([(), (257,), (256, 98)]),
)
def test_a_block_ends_where_plain_decoding_ends(
    token_ids: list[int], sizes: list[int], sampling: SamplingParams, eos: tuple[int, ...]
) -> None:
    rules = StopRules(sampling, eos, from_bytes)
    kept: tuple[int, ...] = ()
    text, reason, rest = "", None, token_ids
    for size in sizes:
        emission = rules.commit(rest[:size])
        kept, text, rest = kept + emission.token_ids, text + emission.text, rest[size:]
        assert reason is None or emission.token_ids == ()
        reason = emission.finish_reason
    count, expected_text, expected_reason = plain_stop(token_ids, sampling, eos)
    assert (kept, reason) == (tuple(token_ids[:count]), expected_reason)
    assert rules.remaining == sampling.max_new_tokens - count
    if expected_reason is not None:
        assert text == expected_text


def test_the_end_token_wins_over_the_budget() -> None:
    emission = StopRules(SamplingParams(max_new_tokens=2), [5]).commit([1, 5, 7])
    assert (emission.token_ids, emission.finish_reason, emission.text) == ((1, 5), STOP, "")


def test_stop_strings_need_a_detokenizer() -> None:
    with pytest.raises(InvalidRequestError, match="tokenizer"):
        StopRules(SamplingParams(stop=("x",)))
