"""Which characters of an answer were drafted, and which the target had to write itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flashsd_ray.engine.answers import Chunk


class DraftRuns:
    """Cuts the text of one answer's chunks where accepted drafts meet the target's own tokens.

    Text comes later than its tokens when a character or a stop string may be unfinished, so the runs are kept by their
    place in the whole text.
    """

    def __init__(self, detokenize: Callable[[Sequence[int]], str]) -> None:
        self._detokenize = detokenize
        self._token_ids: list[int] = []
        self._ends: list[tuple[int, bool]] = []  # character behind each run, and whether it was drafted
        self._num_shown = 0

    def split(self, chunk: Chunk) -> list[tuple[str, bool]]:
        """The text of the chunk in runs, each with whether it was drafted."""
        self._append(chunk.token_ids[: chunk.num_accepted], is_accepted=True)
        self._append(chunk.token_ids[chunk.num_accepted :], is_accepted=False)
        runs, text, start = [], chunk.text, self._num_shown
        self._num_shown += len(text)
        for end, is_accepted in self._ends:
            run, text = text[: max(0, end - start)], text[max(0, end - start) :]
            start += len(run)
            if run:
                runs.append((run, is_accepted))
        if text:
            runs.append((text, False))
        return runs

    def _append(self, token_ids: Sequence[int], *, is_accepted: bool) -> None:
        if token_ids:
            self._token_ids += token_ids
            self._ends.append((len(self._detokenize(self._token_ids).rstrip("\ufffd")), is_accepted))
