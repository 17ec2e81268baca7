"""A subtitle file for every video of a unit: one cue for each of its segments that has a caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flashsd_ray.batch.outputs.names import file_name
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.media.subtitles import WEBVTT_HEADER, cue


def subtitle_files(outcomes: Sequence[Outcome], suffix: str) -> Iterator[tuple[str, str]]:
    """Name and content of every file: ``ID.vtt`` for the first prompt, ``ID.1.vtt`` for the second, and so on.

    Pictures and clips without any caption have none.

    Args:
        suffix: ``vtt`` or ``srt``.
    """
    files: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in outcomes:
        files.setdefault((outcome.row_id, outcome.prompt_index), []).append(outcome)
    for (row_id, prompt_index), parts in files.items():
        cues = _cues(sorted(parts, key=lambda part: part.segment), is_webvtt=suffix == "vtt")
        if cues:
            number = f".{prompt_index}" if prompt_index else ""
            yield f"{file_name(row_id)}{number}.{suffix}", (WEBVTT_HEADER if suffix == "vtt" else "") + "".join(cues)


def _cues(parts: Sequence[Outcome], *, is_webvtt: bool) -> list[str]:
    cues: list[str] = []
    for part in parts:
        if part.error or part.start_s is None or part.end_s is None:
            continue
        cues.append(cue(len(cues) + 1, (part.start_s, part.end_s), part.caption, is_webvtt=is_webvtt))
    return cues
