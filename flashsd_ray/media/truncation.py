"""Whether a container was cut off, told from the lengths that its own outermost boxes declare.

FFmpeg reads a cut-off file as a shorter one, which would caption half a video as if it were whole. A container that
declares no length (a live WebM, an MPEG transport stream) gives no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator

from flashsd_ray.media.source import MediaSource

TOP_LEVEL_BOXES = frozenset(b"ftyp moov mdat moof mfra styp sidx free skip wide uuid meta emsg".split())
MIN_BOX_BYTES = 8
EBML_SIGNATURE = b"\x1a\x45\xdf\xa3"
SEGMENT_ID = b"\x18\x53\x80\x67"
MAX_EBML_HEADER_BYTES = 4096


def check_complete(source: MediaSource) -> None:
    """Raises MediaError when the outermost boxes of the container reach beyond the end of the input."""
    declared_bytes = _declared_bytes(source)
    source.check()
    if declared_bytes is not None and declared_bytes > source.size_bytes:
        raise source.error(f"is truncated: {source.size_bytes} of {declared_bytes} bytes are there")


def _declared_bytes(source: MediaSource) -> int | None:
    header = source.peek(MAX_EBML_HEADER_BYTES)
    if header[4:8] in TOP_LEVEL_BOXES:
        return max(_box_ends(source))
    if header.startswith(b"RIFF") and header[8:12] == b"AVI ":
        return 8 + int.from_bytes(header[4:8], "little")
    if header.startswith(EBML_SIGNATURE):
        return _segment_end(header)
    return None


def _box_ends(source: MediaSource) -> Iterator[int]:
    start = 0
    while True:
        source.seek(start)
        header = source.read(16)
        if len(header) < MIN_BOX_BYTES and any(header):
            # The cut went through the head of a box.
            yield start + MIN_BOX_BYTES
            return
        size_bytes, name = int.from_bytes(header[:4], "big"), header[4:8]
        if size_bytes == 1:
            size_bytes = int.from_bytes(header[8:16], "big")
        if size_bytes == 0 or name not in TOP_LEVEL_BOXES or size_bytes < MIN_BOX_BYTES:
            # A box of size 0 reaches to the end of the file; what is no box is padding or garbage after the last one.
            yield start
            return
        start += size_bytes
        yield start


def _segment_end(header: bytes) -> int | None:
    start = header.find(SEGMENT_ID)
    if start < 0 or start + len(SEGMENT_ID) >= len(header):
        return None
    start += len(SEGMENT_ID)
    # The number of leading zero bits of the first byte is the number of bytes that follow it; all ones: unknown.
    length = 9 - header[start].bit_length()
    size_bytes = int.from_bytes(header[start : start + length], "big") & ((1 << 7 * length) - 1)
    is_unknown = size_bytes == (1 << 7 * length) - 1
    return None if length > 8 or is_unknown else start + length + size_bytes
