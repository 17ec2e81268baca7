"""``data:`` addresses: the content stands in the address itself."""

from __future__ import annotations

import base64
import binascii

from flashsd_ray.errors import MediaError, MediaLimitError

# What some clients escape of the characters that base64 uses.
_ESCAPED = {"+": "%2B", "/": "%2F", "=": "%3D"}


def too_large(label: str) -> MediaLimitError:
    """The error for content that exceeds what one request may bring."""
    return MediaLimitError(f"{label}: is larger than serving.max_body_bytes leaves room for")


def decode_data(url: str, max_bytes: int) -> bytes:
    """The content of a base64 ``data:`` address.

    Raises:
        MediaLimitError: it has more than ``max_bytes``; nothing was decoded then.
        MediaError: it is not base64.
    """
    head, comma, content = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise MediaError("a data: address must have the form data:TYPE;base64,CONTENT")
    for character, escaped in _ESCAPED.items():
        content = content.replace(escaped, character).replace(escaped.lower(), character)
    if len(content) // 4 * 3 - content.count("=", -2) > max_bytes:
        raise too_large("the data: address")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"the data: address is not base64: {error}") from None
