"""What is sent arrives equal, and whatever else arrives is refused with one error and no memory."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flashsd_ray import errors, types
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import FlashSDError, InvalidRequestError, OverloadedError, UnavailableError, WireError
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import (
    CaptionRequest,
    DraftBlock,
    EncodedPrompt,
    Fill,
    FinishReason,
    Proposal,
    TokenLogprob,
    Turn,
    Verdict,
    VisualInput,
    VisualSegment,
)
from flashsd_ray.wire import records
from flashsd_ray.wire.buffers import TENSOR_DTYPES
from flashsd_ray.wire.codec import VERSION, decode, encode, register
from flashsd_ray.wire.forms import ERRORS
from tests.strategies import samplings

HEAD = struct.Struct("<3sBIII")
IDS = st.lists(st.integers(0, 200_000), max_size=12).map(tuple)
SHORT = st.integers(0, 5)


@st.composite
def tensors(draw: st.DrawFn, axes: int | None = None) -> Tensor:
    dtype = TENSOR_DTYPES[draw(st.sampled_from(sorted(TENSOR_DTYPES)))]
    shape = draw(st.lists(SHORT, min_size=axes or 0, max_size=axes or 4))
    return (torch.rand(shape, generator=torch.Generator().manual_seed(draw(SHORT))) * 100).to(dtype)


@st.composite
def proposals(draw: st.DrawFn) -> Proposal:
    rows, support = draw(SHORT), draw(SHORT)
    return Proposal(support_ids=torch.randint(99, (rows, support)), support_probs=torch.rand(rows, support).double())


TOKEN_LOGPROBS = st.builds(
    TokenLogprob,
    token_id=SHORT,
    logprob=st.floats(allow_nan=False),
    text=st.text(max_size=3),
    top=st.lists(st.builds(TokenLogprob, token_id=SHORT, logprob=st.floats(-9, 0)), max_size=2).map(tuple),
)
BLOCKS = st.builds(
    DraftBlock,
    request_id=st.text(max_size=8),
    round=SHORT,
    start=st.integers(0, 2**40),
    token_ids=IDS,
    proposal=st.none() | proposals(),
    confidence=st.none() | st.lists(st.floats(0, 1), max_size=4).map(tuple),
)
VERDICTS = st.builds(
    Verdict,
    request_id=st.text(max_size=8),
    round=SHORT,
    start=SHORT,
    num_accepted=SHORT,
    token_ids=IDS,
    taps=st.none() | tensors(axes=2),
    logprobs=st.lists(TOKEN_LOGPROBS, max_size=2).map(tuple),
)
PROMPTS = st.builds(
    EncodedPrompt,
    token_ids=IDS,
    embeddings=tensors(axes=2),
    positions=tensors(axes=2),
    segments=st.lists(st.builds(VisualSegment, start=SHORT, num_tokens=SHORT, digest=st.text(max_size=4))).map(tuple),
    deepstack=st.lists(tensors(axes=2), max_size=2).map(tuple),
)
STATS = st.builds(
    SpeculationStats,
    num_new_tokens=SHORT,
    accepted_per_position=IDS,
    seconds=st.dictionaries(st.text(max_size=4), st.floats(0, 9), max_size=3),
)
RAISED = st.sampled_from(
    [InvalidRequestError("no"), OverloadedError("full", retry_after_s=2.5), UnavailableError("gone"), FlashSDError("?")]
)
CHUNKS = st.builds(
    Chunk,
    request_id=st.text(max_size=8),
    text=st.text(max_size=8),
    token_ids=IDS,
    finish_reason=st.none() | st.sampled_from(FinishReason),
    logprobs=st.lists(TOKEN_LOGPROBS, max_size=2).map(tuple),
    error=st.none() | RAISED,
    stats=st.none() | STATS,
)
FRAMES = VisualInput(
    kind="video", frames=np.arange(48, dtype=np.uint8).reshape(2, 2, 4, 3), timestamps_s=np.arange(2.0)
)
TURNS = st.just((Turn(role="system", parts=("be brief",)), Turn(role="user", parts=(FRAMES, "what?"))))
REQUESTS = st.builds(CaptionRequest, request_id=st.text(max_size=8), turns=TURNS, sampling=samplings())
RECORDS = (
    BLOCKS | VERDICTS | PROMPTS | CHUNKS | REQUESTS | samplings() | st.builds(Fill, request_id=st.text(), stop=SHORT)
)
ATOMS = (
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text() | st.binary()
)
VALUES = st.recursive(
    ATOMS | tensors() | RECORDS | st.sampled_from(FinishReason),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def same(left: Any, right: Any) -> bool:
    """Equal in type, structure and every element."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, FlashSDError):
        return str(left) == str(right) and vars(left) == vars(right)
    if is_dataclass(left):
        return all(same(getattr(left, item.name), getattr(right, item.name)) for item in fields(left))
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return bool(left == right)


def sealed(packed: bytes, behind: bytes = b"") -> bytes:
    """A message of these parts whose checksum is right: what remains to be refused is inside."""
    body = packed + bytes(-len(packed) % 16) + behind
    return HEAD.pack(b"FSD", VERSION, len(packed), 0, zlib.crc32(body)) + body


@given(VALUES)
@settings(max_examples=300)
def test_what_is_sent_arrives_equal(value: Any) -> None:
    message = encode(value)
    assert same(decode(message), value)
    assert same(decode(bytearray(message)), value)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


@given(st.binary(max_size=200), st.binary(max_size=40))
@settings(max_examples=300)
def test_random_contents_are_refused_or_read(packed: bytes, behind: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(sealed(packed, behind))


TAGS = st.sampled_from(sorted({*records.KINDS, *ERRORS, *TENSOR_DTYPES, "tuple", "list", "dict", "tensor", "int"}))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**64 - 1) | st.floats() | TAGS | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(TAGS, inner)
        | st.tuples(TAGS, st.lists(inner, max_size=10))
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=14,
)


@given(PLAIN, st.binary(max_size=40))
@settings(max_examples=500)
def test_contents_of_the_right_words_in_any_order_are_refused_or_read(plain: Any, behind: bytes) -> None:
    with contextlib.suppress(WireError):
        value = decode(sealed(msgpack.packb(plain), behind + bytes(-len(behind) % 16)))
        assert same(decode(encode(value)), value) or "nan" in repr(value)


@given(RECORDS, st.data())
def test_no_message_is_read_when_it_is_cut_off_or_changed(value: Any, data: st.DataObject) -> None:
    message = encode(value)
    with pytest.raises(WireError):
        decode(message[: data.draw(st.integers(0, len(message) - 1))])
    changed = bytearray(message)
    changed[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(WireError):
        decode(changed)


@given(RECORDS, st.data())
@settings(max_examples=300)
def test_contents_changed_behind_a_right_checksum_raise_nothing_else(value: Any, data: st.DataObject) -> None:
    message = encode(value)
    length = HEAD.unpack_from(message)[2]
    body = bytearray(message[HEAD.size :])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        decode(HEAD.pack(b"FSD", VERSION, length, 0, zlib.crc32(body)) + body)


@pytest.mark.parametrize(
    "packed",
    [
        b"\xdd\x00\x10\x00\x00" * 1000,  # a million items, a thousand deep
        b"\xdf\x7f\xff\xff\xff" * 200,
        b"\xc6\x7f\xff\xff\xff",
        b"\xc9\x7f\xff\xff\xff\x01",
        msgpack.packb(["tensor", ["float32", 2**20, 2**20]]),
        msgpack.packb(["tensor", ["float32", 0, 2**62, 2**62]]),
        msgpack.packb(["tensor", ["float32", *[1] * 60]]),
        msgpack.packb(["tensor", ["float32", -1]]),
        msgpack.packb(["tensor", ["float32", True]]),
        msgpack.packb(["tensor", ["object", 1]]),
        msgpack.packb(["array", ["object", 1]]),
        b"\x92\xa4list\x91" * 400 + b"\xc0",  # nested deeper than anything of ours
    ],
)
def test_claims_cost_no_memory(packed: bytes) -> None:
    message = sealed(packed, bytes(64))
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode(message)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("packed", "complaint"),
    [
        (["os.system", []], "unknown kind of value 'os.system'"),
        (["Fill", ["r"]], "expected 2 values, found 1"),
        (["Fill", ["r", 1, 2]], "expected 2 values, found 3"),
        (["Fill", ["r", "1"]], "expected int, found str '1'"),
        (["Fill", [b"r", 1]], "expected str, found bytes"),
        (["Fill", ["r", True]], "expected int, found bool True"),
        (["FinishReason", "bored"], "FinishReason has no member str 'bored'"),
        (["error", ["SystemExit", "", None]], "unknown error 'SystemExit'"),
        (["error", ["InvalidRequestError", "", "soon"]], "expected float or int"),
        (["Turn", ["root", ["tuple", []]]], "expected one of .*'assistant'"),
        (["Turn", ["user", [3]]], "expected one of .*VisualInput"),
        (["VisualInput", ["image", ["uint8", 1, 2, 0, 3], ["float64"], "", 0.0]], "VisualInput is not valid"),
        (["SamplingParams", [-1.0, 0, 1.0, 1, 0, [], [], False, None]], "temperature must be in"),
    ],
)
def test_contents_of_another_type_are_refused_by_name(packed: list[Any], complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        decode(sealed(msgpack.packb(packed), bytes(16)))


def test_another_version_is_refused_by_name() -> None:
    message = bytearray(encode(None))
    message[3] = 99
    with pytest.raises(WireError, match=f"version 99, this process speaks version {VERSION}"):
        decode(message)


def test_what_follows_a_message_is_refused() -> None:
    with pytest.raises(WireError, match="goes on"):
        decode(sealed(msgpack.packb(1), bytes(16)))
    with pytest.raises(WireError, match="goes on"):
        decode(sealed(msgpack.packb(1) * 2))


def test_size_limits_hold_in_both_directions() -> None:
    message = encode(torch.zeros(100), max_bytes=1000)
    assert len(message) < 1000
    with pytest.raises(WireError, match=r"bytes, 400 are allowed"):
        encode(torch.zeros(100), max_bytes=400)
    with pytest.raises(WireError, match=r"bytes, 400 are allowed"):
        decode(message, max_bytes=400)


@dataclass(frozen=True)
class Unknown:
    value: int


@pytest.mark.parametrize(
    "value",
    [
        Unknown(1),
        object(),
        {1: 2},
        {1, 2},
        1j,
        10**100,
        torch.zeros(2, dtype=torch.complex64),
        np.array(["a"]),
        "\ud800",
    ],
)
def test_what_cannot_be_sent_is_refused_when_it_is_sent(value: object) -> None:
    with pytest.raises(WireError):
        encode(value)
    with pytest.raises(WireError):
        encode([value])


def test_a_field_of_another_type_is_refused_when_it_is_sent() -> None:
    wrong: Any = "5"
    with pytest.raises(WireError, match="expected int"):
        encode(Fill(request_id="r", stop=wrong))


def test_a_value_nested_without_end_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(WireError, match="nested"):
        encode(value)


def test_tensors_share_the_memory_of_a_writable_message_only() -> None:
    message = bytearray(encode(torch.arange(1000)))
    shared, own = decode(message), decode(bytes(message))
    assert isinstance(shared, Tensor)
    assert isinstance(own, Tensor)
    message[-8 * 1000 :] = bytes(8 * 1000)
    assert torch.equal(own, torch.arange(1000))
    assert not torch.equal(shared, own)
    own += 1  # its own memory


def test_strided_and_differentiable_tensors_are_sent_by_value() -> None:
    value = torch.arange(12.0, requires_grad=True).view(3, 4).t()
    assert same(decode(encode(value)), value.detach().contiguous())


def test_names_stand_for_one_type_only() -> None:
    @dataclass(frozen=True)
    class Fill:
        stop: int

    with pytest.raises(WireError, match="two types named Fill"):
        register(Fill)


def test_every_error_of_the_package_can_travel() -> None:
    for kind in ERRORS.values():
        assert same(decode(encode(kind("why"))), kind("why"))

    class Special(errors.StaleBlockError):
        pass

    assert type(decode(encode(Special("why")))) is errors.StaleBlockError


def test_every_registered_type_has_a_form() -> None:
    assert types.Verdict in records.KINDS.values()
    for kind in records.KINDS.values():
        form = records.form_of(kind)
        assert not isinstance(form, records.Record) or form.fields
