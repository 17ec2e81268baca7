"""What the target thinks while it reads a question and its answer: taps of every row, and what its head reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flashsd_ray.config import Config
from flashsd_ray.models.decoder import Decoder
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.kv_cache import BLOCK_ROWS
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.models.taps import Taps
from flashsd_ray.models.target import LocalTarget
from flashsd_ray.models.visual_cache import MemoryVisualCache
from flashsd_ray.training.drafter.answers import Answer
from flashsd_ray.training.drafter.questions import Question, load_visuals
from flashsd_ray.types import Conversation, DraftBlock, EncodedPrompt, SamplingParams, VisualSegment

VISUAL_CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Reading:
    """One question and answer as the target read them; the last token has no row, since nothing follows it."""

    token_ids: tuple[int, ...]  # length n, prompt and answer
    num_prompt_tokens: int
    segments: tuple[VisualSegment, ...]
    taps: Tensor  # [n - 1, M * D]
    finals: Tensor  # [answer length - 1, D], what the head reads at the rows of the answer
    embeddings: Tensor | None  # [n - 1, D], only where the compressor reads vision features
    is_greedy: bool

    @property
    def num_anchors(self) -> int:
        """Positions of the answer behind which something was said."""
        return len(self.token_ids) - 1 - self.num_prompt_tokens

    @property
    def num_bytes(self) -> int:
        """Memory that the reading takes."""
        tensors = (self.taps, self.finals, self.embeddings)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


class Reader:
    """Runs the frozen target over questions with their answers.

    Successive questions about the same pictures share what the vision tower made of them, and the rows of the language
    model up to where the questions differ.
    """

    def __init__(
        self, target: PretrainedTarget, tap_layers: Sequence[int], config: Config, *, keeps_embeddings: bool = False
    ) -> None:
        self._decoder: Decoder = target.decoder
        self._encoder = LocalEncoder(target, MemoryVisualCache(VISUAL_CACHE_BYTES), config.encoding)
        self._media = config.media
        self._keeps_embeddings = keeps_embeddings
        last = self._decoder.num_layers
        layers = tuple(sorted({*tap_layers, last}))
        self._tap_columns = len(tap_layers) * self._decoder.hidden_size
        self._target = LocalTarget(
            self._decoder,
            cache_rows=min(config.scheduling.cache_rows, 2 * target.context_length + BLOCK_ROWS),
            context_length=target.context_length,
            taps=Taps(layers, len(layers) * self._decoder.hidden_size, lambda rows: rows),
        )

    @property
    def num_frames_encoded(self) -> int:
        """Frames that went through the vision tower so far."""
        return self._encoder.num_frames_encoded

    def read(self, answer: Answer) -> Reading:
        """The target's rows over prompt and answer, computed as it computes a prompt.

        Raises:
            InvalidRequestError: the pictures cannot be read, or prompt and answer are too long.
        """
        question = answer.question
        prompt = self._encoder.encode(Conversation.of(question.prompt, load_visuals(question, self._media)))
        return self.read_encoded(prompt, answer.token_ids, is_greedy=is_greedy(question))

    @torch.inference_mode()
    def read_encoded(self, prompt: EncodedPrompt, token_ids: Sequence[int], *, is_greedy: bool) -> Reading:
        """The same for a prompt that is encoded already."""
        whole = self._with_answer(prompt, token_ids[:-1])
        self._target.open("reading", whole, SamplingParams(), len(whole) + 1)
        try:
            verdicts = self._target.verify([DraftBlock(request_id="reading", round=0, start=len(whole))])
            rows = self._target.tapped(verdicts)[0].taps
        finally:
            self._target.close("reading")
        assert rows is not None
        width = self._decoder.hidden_size
        return Reading(
            token_ids=(*prompt.token_ids, *token_ids),
            num_prompt_tokens=len(prompt),
            segments=prompt.segments,
            taps=rows[:, : self._tap_columns].clone().cpu(),
            finals=rows[len(prompt) :, -width:].clone().cpu(),
            embeddings=whole.embeddings.cpu() if self._keeps_embeddings else None,
            is_greedy=is_greedy,
        )

    def _with_answer(self, prompt: EncodedPrompt, token_ids: Sequence[int]) -> EncodedPrompt:
        if not token_ids:
            return prompt
        device = self._decoder.device
        ids = torch.tensor(token_ids, dtype=torch.int64, device=device)
        embedded = self._decoder.embedding.index_select(0, ids)
        positions = prompt.next_position + torch.arange(len(token_ids), device=prompt.positions.device)
        return replace(
            prompt,
            token_ids=(*prompt.token_ids, *token_ids),
            embeddings=torch.cat((prompt.embeddings.to(embedded), embedded)),
            positions=torch.cat((prompt.positions, positions.expand(len(prompt.positions), -1)), dim=1),
        )


def is_greedy(question: Question) -> bool:
    """Whether the answer is the target's most probable one; of an answer that the data says nobody knows."""
    return question.temperature == 0.0 and question.answer is None
