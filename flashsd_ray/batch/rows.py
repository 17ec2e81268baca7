"""The values that offline captioning passes on: clips in, units of them, segments, outcomes out.

Readers (``batch.inputs``) give units one by one and in the same order on every run, and never hold all of them:
``open_input(patterns, options) -> Input`` with ``units(rows_per_unit) -> Iterator[Unit]``, ``describe() -> str``,
``fingerprint() -> str`` (cheap: of how the input was named, not of all its rows) and ``count() -> int | None``. An
``Input`` can be pickled: a worker iterates, not the driver.

Writers (``batch.outputs``) are used by one process for a unit: ``Writer(directory, formats).write(unit_id, outcomes)``
replaces the unit's files or leaves them as they were; ``finished() -> Iterator[str]`` gives the ids of the units that
are there, ``read(unit_id) -> list[Outcome]`` what a unit holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

SCHEMA_VERSION = 1  # of Outcome, in every file that is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where the bytes of a clip lie within a tar file."""

    shard: str  # path or URI of the tar file
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One row of the input: a video or a picture, or a part of a video, that is to be captioned."""

    row_id: str  # unique in the input, the same on every run
    source: str  # path or URI; for a member of a tar file ``shard.tar#member``
    start_s: float | None = None  # None: from its beginning
    end_s: float | None = None  # None: to its end
    prompts: tuple[str, ...] = ()  # empty: those of the run
    extra: Mapping[str, JSON] = field(default_factory=dict)  # carried through to the output
    member: Member | None = None  # None: source is a file of its own
    problem: str = ""  # what is wrong with the row itself; reading it raises RowError with these words


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Consecutive rows that are planned, written and resumed together: all of them are in the output, or none."""

    index: int  # 0, 1, 2 ... in the order of the input
    clips: tuple[Clip, ...]

    @property
    def unit_id(self) -> str:
        """Names the unit's files: its place in the input, and a hash by which other rows at that place are noticed."""
        content = hashlib.blake2b(digest_size=4)
        for clip in self.clips:
            row = f"{clip.row_id}\0{clip.source}\0{clip.start_s}\0{clip.end_s}\0{clip.prompts}\n"
            content.update(row.encode(errors="surrogatepass"))  # names of files need not be UTF-8
        return f"{self.index:08d}-{content.hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One row of the output: the answer to one prompt about one segment, or why there is none.

    A clip that cannot be read at all has one outcome, with ``segment`` and ``prompt_index`` 0.
    """

    row_id: str  # of the clip; with segment and prompt_index it names the outcome
    segment: int = 0
    prompt_index: int = 0
    source: str = ""
    start_s: float | None = None  # of the segment, from the start of the source; None: not known
    end_s: float | None = None
    prompt: str = ""
    caption: str = ""
    finish_reason: str = ""  # why the answer ended: "stop", "length" ...; "error" where there is an error
    num_prompt_tokens: int = 0
    num_tokens: int = 0  # of the caption
    tau: float = 0.0  # tokens that one verification committed; 0: nothing was verified
    read_s: float = 0.0  # seconds for reading and sampling the frames of the segment
    encode_s: float = 0.0  # for its vision tower and projector
    decode_s: float = 0.0  # for prefill and decoding of the answer: this request's share of the lane's time
    content_key: str = ""  # equal for equal frames, prompt and sampling parameters
    is_copy: bool = False  # another row with the same content_key was decoded, and this is its answer
    model: str = ""
    model_fingerprint: str = ""
    drafter: str = ""
    drafter_fingerprint: str = ""
    error: str = ""  # its kind: the name of an error class, or "WorkerDied"; empty: there is a caption
    error_message: str = ""
    extra: Mapping[str, JSON] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def key(self) -> tuple[str, int, int]:
        """Names the outcome: no two rows of the output have the same."""
        return self.row_id, self.segment, self.prompt_index
