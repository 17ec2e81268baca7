"""Where an answer parts from plain decoding, and how nearly equal the two tokens were there.

In bfloat16 eight rows may round differently from one. That is harmless where the float32 model itself hardly prefers one
of the two tokens; it is a mistake where it clearly does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from flashsd_ray.config import Config
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter.readings import Reader
from flashsd_ray.types import Conversation, EncodedPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The first place at which two greedy answers to a clip differ."""

    digest: str  # of the clip
    place: int  # tokens that agree
    expected: int  # token id of plain decoding
    found: int
    top_gap: float | None = None  # of the float32 logits of the two most probable tokens there
    pair_gap: float | None = None  # expected minus found

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def first_difference(expected: Sequence[int], found: Sequence[int]) -> int | None:
    """The first place at which the answers differ; None where one is the beginning of the other."""
    pairs = zip(expected, found, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), None)


def divergences(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> list[Divergence]:
    """Of all clips that both answered, those with different answers."""
    parted = []
    for digest in expected.keys() & found.keys():
        place = first_difference(expected[digest], found[digest])
        if place is not None:
            tokens = {"expected": expected[digest][place], "found": found[digest][place]}
            parted.append(Divergence(digest=digest, place=place, **tokens))
    return sorted(parted, key=lambda one: one.digest)


class GapReader:
    """Asks the target in float32 how sure it was."""

    def __init__(self, target: PretrainedTarget, config: Config) -> None:
        self._target = target
        self._encoder = LocalEncoder(target)
        self._reader = Reader(target, (target.decoder.num_layers,), config)

    @torch.inference_mode()
    def judged(self, one: Divergence, conversation: Conversation, answer: Sequence[int]) -> Divergence:
        """The divergence with its gaps; ``answer`` is what plain decoding said."""
        prompt: EncodedPrompt = self._encoder.encode(conversation)
        # The last token has no row, so one more than the place is needed.
        reading = self._reader.read_encoded(prompt, [*answer[: one.place], one.expected], is_greedy=True)
        rows = reading.taps[len(prompt) - 1 + one.place :][:1].to(self._target.decoder.device)
        logits = self._target.decoder.logits(rows)[0].float()
        top = logits.topk(2).values
        return Divergence(
            digest=one.digest,
            place=one.place,
            expected=one.expected,
            found=one.found,
            top_gap=float(top[0] - top[1]),
            pair_gap=float(logits[one.expected] - logits[one.found]),
        )
