"""Several exchanges about one clip in one row: each sees the clip and itself, none sees another.

<s><user>[visual tokens] | prompt <assistant> answer </s> | prompt <assistant> answer </s> | ...
"""

import random
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from flashsd_ray.training.target.architecture import PATCHES_PER_FRAME
from flashsd_ray.training.target.tokenizer import ASSISTANT, IMAGE, USER
from flashsd_ray.training.town.language import Task, converse
from flashsd_ray.training.town.scene import Scene
from flashsd_ray.training.town.teaching import plan

SUFFIX_TOKENS = 270  # of a packed row: prompts and answers


@dataclass(frozen=True, kw_only=True)
class PackedText:
    """Rows of prefix and exchanges, padded to one length."""

    input_ids: torch.Tensor  # [B, T] int64
    positions: torch.Tensor  # [B, T] int64
    segments: torch.Tensor  # [B, T] int64: 0 prefix, 1.. exchanges, -1 padding
    targets: torch.Tensor  # [B, T] int64, the next token where it is part of an answer, else -100


class Packer:
    """Turns scenes into packed rows."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._image = tokenizer.convert_tokens_to_ids(IMAGE)
        self._user = tokenizer.convert_tokens_to_ids(USER)
        self._assistant = tokenizer.convert_tokens_to_ids(ASSISTANT)

    def pack(self, scenes: tuple[Scene, ...], frame_count: int, *, is_early: bool) -> PackedText:
        """One row per scene; early rows hold short answers only."""
        visual = [self._image] * (PATCHES_PER_FRAME * frame_count)
        prefix = [self._tokenizer.bos_token_id, self._user, *visual]
        rows = [self._row(scene, prefix, is_early=is_early) for scene in scenes]
        ids, positions, segments, targets = (torch.tensor(part) for part in zip(*rows, strict=True))
        return PackedText(input_ids=ids, positions=positions, segments=segments, targets=targets)

    def _row(
        self, scene: Scene, prefix: list[int], *, is_early: bool
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        ids, positions = list(prefix), list(range(len(prefix)))
        segments, targets = [0] * len(prefix), [-100] * len(prefix)
        length = len(prefix) + SUFFIX_TOKENS
        for segment, (task, paraphrase) in enumerate(self._plan(scene, is_early=is_early), start=1):
            prompt, answer = self._encode(scene, task, paraphrase)
            both = prompt + answer
            if len(ids) + len(both) > length:
                continue
            ids += both
            positions += range(len(prefix), len(prefix) + len(both))
            segments += [segment] * len(both)
            targets += [-100] * (len(prompt) - 1) + answer + [-100]
        missing = length - len(ids)
        ids += [self._tokenizer.pad_token_id] * missing
        positions += [0] * missing
        segments += [-1] * missing
        targets += [-100] * missing
        return ids, positions, segments, targets

    def _encode(self, scene: Scene, task: Task, paraphrase: int) -> tuple[list[int], list[int]]:
        exchange = converse(scene, task, paraphrase)
        prompt = self._tokenizer.encode(exchange.prompt, add_special_tokens=False)
        answer = self._tokenizer.encode(exchange.answer, add_special_tokens=False)
        return [*prompt, self._assistant], [*answer, self._tokenizer.eos_token_id]

    def _plan(self, scene: Scene, *, is_early: bool) -> list[tuple[Task, int]]:
        stream = random.Random(f"plan:{scene.split}:{scene.seed}")
        return [(task, index) for index, task in enumerate(plan(stream, is_early=is_early))]


def attention_bias(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The additive mask of packed rows, [B, 1, T, T]: causal, prefix and own exchange only."""
    length = segments.shape[1]
    is_causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    is_seen = ((key == 0) | (key == query)) & is_causal
    bias = torch.zeros(is_seen.shape, dtype=dtype)
    return bias.masked_fill_(~is_seen, torch.finfo(dtype).min)[:, None]
