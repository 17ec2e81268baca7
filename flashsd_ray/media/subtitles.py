"""SubRip and WebVTT: one cue after the other."""

from __future__ import annotations

WEBVTT_HEADER = "WEBVTT\n\n"
WEBVTT_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
SUBRIP_ESCAPES = {"-->": "->"}


def cue(number: int, span_s: tuple[float, float], text: str, *, is_webvtt: bool) -> str:
    """One cue with the empty line that ends it."""
    mark, escapes = (".", WEBVTT_ESCAPES) if is_webvtt else (",", SUBRIP_ESCAPES)
    line = " ".join(text.split())  # an empty line would end the cue
    for character, escape in escapes.items():
        line = line.replace(character, escape)
    start, end = (stamp(seconds, mark) for seconds in span_s)
    return f"{number}\n{start} --> {end}\n{line}\n\n"


def stamp(seconds: float, mark: str) -> str:
    """Hours, minutes, seconds and milliseconds as subtitle formats write them."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{mark}{rest % 1000:03}"
