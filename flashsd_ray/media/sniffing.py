"""What an input is, told from its first bytes and never from its name.

Pictures, animated ones too, are named by their Pillow format. Everything else is left to FFmpeg, except what could make
it open other files or what it would misread.
"""

from __future__ import annotations

import re

HEADER_BYTES = 4096

PICTURE_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"\xff\xd8\xff", "JPEG"),
        (rb"\x89PNG\r\n\x1a\n", "PNG"),
        (rb"GIF8[79]a", "GIF"),
        (rb"RIFF....WEBP", "WEBP"),
        # Two letters are no signature: the size of the header that follows must be one that exists.
        (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", "BMP"),
        (rb"II[*+]\x00|MM\x00[*+]", "TIFF"),
        (rb"....ftypavi[fs]", "AVIF"),
        (rb"....ftypmi[fs]1.{4}(?:.{4}){0,8}?avif", "AVIF"),
        (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG2000"),
        (rb"P[1-6]\s", "PPM"),
        (rb"\x00\x00\x01\x00[^\x00]\x00", "ICO"),
        (rb"qoif", "QOI"),
    )
)

REFUSED_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), problem)
    for pattern, problem in (
        (rb"\s*#EXTM3U", "is an HLS playlist; it refers to other files, which are never opened"),
        (rb"\s*ffconcat version", "is a list of other files, which are never opened"),
        (rb"v=0\s", "describes a network session (SDP), which is never opened"),
        (rb"\s*<", "is a markup document, not a picture or a video"),
        # FFmpeg would show one tile of the picture as a video.
        (rb"....ftyp(?:hei[cfsmx]|hev[cmsx]|mi[fs]1|msf1)", "is a HEIF picture; convert it to JPEG"),
        (rb"%PDF-", "is a PDF document, not a picture or a video"),
        (rb"PK\x03\x04", "is a ZIP archive, not a picture or a video"),
        (rb"\x00+\Z", "holds only zero bytes where a picture or a video should begin"),
    )
)


def picture_format(header: bytes) -> str | None:
    """The Pillow name of the picture format that begins like this; None when it is no picture."""
    return next((name for pattern, name in PICTURE_SIGNATURES if pattern.match(header)), None)


def refusal(header: bytes) -> str | None:
    """Why an input that begins like this is not given to FFmpeg; None when it may be."""
    problem = next((problem for pattern, problem in REFUSED_SIGNATURES if pattern.match(header)), None)
    if problem is None and _is_text(header):
        return "is text, not a picture or a video"
    return problem


def _is_text(header: bytes) -> bool:
    # A character may be cut at the end of the header.
    text = header.decode("utf-8", errors="ignore").removeprefix("\ufeff")
    if len(text.encode("utf-8")) < len(header) - 3:
        return False
    # The one video format whose header is text.
    return not text.startswith("YUV4MPEG2 ") and all(c.isprintable() or c.isspace() for c in text)
