"""Server-sent events, as bytes arrive."""

from __future__ import annotations


class EventParser:
    """Finds the data of every event, however the bytes were cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, content: bytes) -> list[str]:
        """The data of the events that are complete now; comments are left out."""
        *events, self._rest = (self._rest + content).split(b"\n\n")
        found = [_data(event) for event in events]
        return [data for data in found if data]

    @property
    def is_between_events(self) -> bool:
        """Whether no event is half there."""
        return not self._rest


def _data(event: bytes) -> str:
    lines = [line.removeprefix(b"data:").strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines).decode()
