"""API keys and their owners: a text of lines ``name:key`` or ``name:sha256$hexdigest``.

Empty lines and lines that begin with ``#`` say nothing. One name may have several keys, so that a key can be replaced
without a gap. No message ever shows a key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from flashsd_ray.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_KEY = re.compile(r"[!-~]+")  # what every HTTP header can carry
_HASHED = "sha256$"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Keyring:
    """Whose key is whose; the keys themselves are not kept."""

    owners: tuple[tuple[bytes, str], ...]  # digest of a key, name of its owner

    def owner_of(self, key: str) -> str | None:
        """The name that the key belongs to; None where it is nobody's. Takes the same time for every key."""
        # Any text may come from outside, also halves of characters.
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = None
        for known, name in self.owners:
            if hmac.compare_digest(known, digest):
                found = name
        return found


def parse_keys(text: str, source: str) -> Keyring:
    """The keys that the text holds.

    Raises:
        ConfigError: a line has another form, a key stands there twice or there is none; names ``source`` and the line.
    """
    lines: dict[bytes, tuple[str, int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{source}, line {number}"
        name, digest = _parse_line(line.strip(), place)
        if digest in lines:
            raise ConfigError(f"{place}: line {lines[digest][1]} has the same key")
        lines[digest] = (name, number)
    if not lines:
        raise ConfigError(f"{source} holds no key; each line is name:key or name:sha256$hexdigest")
    return Keyring(tuple((digest, name) for digest, (name, _) in lines.items()))


def _parse_line(line: str, place: str) -> tuple[str, bytes]:
    name, colon, key = (part.strip() for part in line.partition(":"))
    if not colon:
        raise ConfigError(f"{place}: must be name:key or name:sha256$hexdigest")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: a name has 1 to 64 letters, digits or any of _ . @ -")
    if key.startswith(_HASHED):
        digest = key.removeprefix(_HASHED).lower()
        if not _DIGEST.fullmatch(digest):
            raise ConfigError(f"{place}: 64 hexadecimal digits must follow {_HASHED}")
        return name, bytes.fromhex(digest)
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"{place}: a key is made of printable ASCII characters without spaces; a comment needs its own line"
        )
    return name, hashlib.sha256(key.encode()).digest()
