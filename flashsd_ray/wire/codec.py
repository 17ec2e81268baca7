"""Values to bytes and back, for what crosses process boundaries and what is kept in Redis; never pickle.

A message is a fixed head (magic with version, length of the packed part, checksum of everything behind the head), a
msgpack part, and the elements of tensors behind it, each part padded to a multiple of 16 bytes. Only a closed set of
types can be sent: None, bool, int, float, str, bytes, list, tuple, dict with str keys, tensors, numpy arrays, errors
of this package, and the dataclasses and enums that are registered.
"""

from __future__ import annotations

import struct
import zlib

import msgpack  # type: ignore[import-untyped]

from flashsd_ray import types
from flashsd_ray.engine.answers import Caption, Chunk
from flashsd_ray.errors import WireError
from flashsd_ray.speculation.stats import RoundStats, SpeculationStats
from flashsd_ray.wire.buffers import BufferReader, BufferWriter, padding
from flashsd_ray.wire.records import Anything, register

__all__ = ["DEFAULT_MAX_BYTES", "VERSION", "decode", "encode", "register"]

VERSION = 1  # of the layout and of the fields of every registered type: a change of either raises it
DEFAULT_MAX_BYTES = 64 * 2**20
_HEAD = struct.Struct("<3sBIII")  # magic, version, length of the packed part, zero, checksum
_MAGIC = b"FSD"
_ANY = Anything()

for _kind in (
    types.CaptionRequest,
    types.Conversation,
    types.DraftBlock,
    types.EncodedPrompt,
    types.Fill,
    types.FinishReason,
    types.Proposal,
    types.SamplingParams,
    types.TokenLogprob,
    types.Turn,
    types.Verdict,
    types.VisualInput,
    types.VisualSegment,
    types.VisualTokens,
    Caption,
    Chunk,
    RoundStats,
    SpeculationStats,
):
    register(_kind)


def encode(value: object, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """The value as one message; tensors are brought to the CPU.

    Raises:
        WireError: the value, or something inside it, is of a type that cannot be sent, or the message is too large.
    """
    buffers = BufferWriter()
    try:
        packed: bytes = msgpack.packb(_ANY.write(value, buffers))
    except RecursionError:
        raise WireError("the value is nested too deeply to be sent") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"the value cannot be sent: {error}") from error
    contents: list[bytes | memoryview] = [packed, *buffers.parts]
    parts = [part for content in contents for part in (content, bytes(padding(len(content))))]
    size = _HEAD.size + sum(map(len, parts))
    if size > max_bytes:
        raise WireError(f"the message has {size} bytes, {max_bytes} are allowed")
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join((_HEAD.pack(_MAGIC, VERSION, len(packed), 0, checksum), *parts))


def decode(data: bytes | bytearray | memoryview, *, max_bytes: int = DEFAULT_MAX_BYTES) -> object:
    """The value of a message; its tensors are on the CPU, and share the memory of ``data`` if that is writable.

    Memory grows with the length of ``data`` only, whatever the message claims.

    Raises:
        WireError: the message is damaged, cut off, too large, of another version or not one of ours.
    """
    if len(data) > max_bytes:
        raise WireError(f"the message has {len(data)} bytes, {max_bytes} are allowed")
    view = memoryview(data).cast("B")
    packed, rest = _opened(view)
    buffers = BufferReader(rest)
    try:
        value: object = _ANY.read(_unpacked(packed), buffers)
    except RecursionError:
        raise WireError("the message is nested too deeply") from None
    if not buffers.is_empty:
        raise WireError("the message goes on behind its last value")
    return value


def _opened(view: memoryview) -> tuple[memoryview, memoryview]:
    """The packed part and what lies behind it."""
    if len(view) < _HEAD.size:
        raise WireError(f"the message is cut off after {len(view)} bytes")
    magic, version, length, reserved, checksum = _HEAD.unpack_from(view)
    if magic != _MAGIC or reserved:
        raise WireError("the bytes are not a message of this package")
    if version != VERSION:
        raise WireError(f"the message is of version {version}, this process speaks version {VERSION}")
    body = view[_HEAD.size :]
    if zlib.crc32(body) != checksum:
        raise WireError("the message is damaged or cut off: its checksum does not match")
    if length + padding(length) > len(body):
        raise WireError(f"the packed part should have {length} bytes, {len(body)} follow")
    return body[:length], body[length + padding(length) :]


def _unpacked(packed: memoryview) -> object:
    # Containers are allocated by the lengths they claim, so everything must be seen to be there first.
    scout = msgpack.Unpacker(max_buffer_size=max(1, len(packed)))
    try:
        scout.feed(packed)
        scout.skip()
        if scout.tell() != len(packed):
            raise WireError("the packed part goes on behind its value")
        value: object = msgpack.unpackb(packed, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"the packed part is damaged: {error}") from error
    return value
