"""What a caller has of an answer, so that a second attempt continues where the connection was lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from flashsd_ray.client.answers import Piece
from flashsd_ray.client.events import AnswerDelta
from flashsd_ray.errors import UnavailableError

P = TypeVar("P", Piece, AnswerDelta)


class Given:
    """The part of an answer that was given out. An answer is a function of its request, so it may be asked for again."""

    def __init__(self) -> None:
        self._text = ""
        self._token_ids: list[int] = []
        self._text_again = ""  # of the present attempt, as long as it repeats what was given
        self._num_tokens_again = 0

    def restart(self) -> None:
        """The answer comes from its beginning again."""
        self._text_again, self._num_tokens_again = "", 0

    @property
    def has_text(self) -> bool:
        """Whether some of the answer was given."""
        return bool(self._text or self._token_ids)

    def fresh(self, piece: P) -> P | None:
        """The part of the piece that was not given yet; None where there is none and it ends nothing.

        Raises:
            UnavailableError: the answer is another one now, so nothing may be put behind what was given.
        """
        first = self._num_tokens_again
        known = self._token_ids[first : first + len(piece.token_ids)]
        self._num_tokens_again += len(piece.token_ids)
        text = self._text_again + piece.text
        repeated = min(len(text), len(self._text))
        if tuple(known) != piece.token_ids[: len(known)] or text[:repeated] != self._text[:repeated]:
            raise UnavailableError("asked again after the connection was lost, the server answered differently")
        new_text, new_tokens = text[max(len(self._text), len(self._text_again)) :], piece.token_ids[len(known) :]
        self._text_again = text
        self._text += new_text
        self._token_ids.extend(new_tokens)
        is_end = isinstance(piece, Piece) and piece.finish_reason is not None
        if (piece.text or piece.token_ids) and not (new_text or new_tokens or is_end):
            return None
        return replace(
            piece,
            text=new_text,
            token_ids=new_tokens,
            num_accepted=min(piece.num_accepted, len(new_tokens)),
            logprobs=piece.logprobs[len(piece.logprobs) - len(new_tokens) :] if known else piece.logprobs,
        )
