"""Names of files that stand for rows: close to the row's id, safe on every file system, never the same for two rows."""

from __future__ import annotations

import hashlib
import re

UNSAFE = re.compile(r"[^\w.@+=,-]")
LONGEST_STEP = 180  # bytes; file systems allow 255, and a hash and an ending follow
RESERVED_ENDINGS = (".vtt", ".srt")  # a directory of such a name could stand where a file must be


def file_name(row_id: str) -> str:
    """A relative path, without an ending; where the id had to be changed, it ends with a hash of it."""
    *directories, last = row_id.split("/")
    safe = "/".join([*map(_directory, directories), _step(last)])
    if safe == row_id:
        return safe
    digest = hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{safe}~{digest}"


def _directory(name: str) -> str:
    step = _step(name)
    return f"{step}_" if step.endswith(RESERVED_ENDINGS) else step


def _step(name: str) -> str:
    safe = UNSAFE.sub("_", name).encode()[:LONGEST_STEP].decode(errors="ignore")
    return f"_{safe}" if not safe or safe.startswith((".", "-")) else safe
