"""The transformers library as a contender: ``generate``, its prompt lookup, and its assisted generation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flashsd_ray.bench.decode.contenders import Outcome
from flashsd_ray.bench.workload import Question
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.types import Conversation, SamplingParams

PROMPT_LOOKUP, ASSISTED = "prompt-lookup", "assisted"
ONE_AT_A_TIME = frozenset({PROMPT_LOOKUP, ASSISTED})  # the library refuses batches there
LOOKUP_TOKENS = 8
ASSISTANT_SHARE = 5  # the assistant has one layer for so many of the target's


class FirstToken:
    """A stopping criterion that stops nothing; knows when the first tokens were there, and how often tokens were added."""

    def __init__(self) -> None:
        self.at_s: float | None = None
        self.length = 0  # of the sequences then
        self.num_calls = 0

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Nobody is to stop."""
        if self.at_s is None:
            _synchronize(input_ids.device)
            self.at_s, self.length = perf_counter(), input_ids.shape[1]
        self.num_calls += 1
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class GenerateContender:
    """One way to call ``generate``: the same weights, the same prompts, prefill not in the time."""

    def __init__(self, name: str, target: PretrainedTarget) -> None:
        self.name = name
        self._target = target
        self._encoder = LocalEncoder(target)
        self._options: dict[str, Any] = {}
        if name == PROMPT_LOOKUP:
            # What it finds may reach into the pictures' placeholders, and the library's forward then looks for pixels.
            placeholders = sorted(target.placeholder_ids)
            self._options = {"prompt_lookup_num_tokens": LOOKUP_TOKENS, "suppress_tokens": placeholders}
        elif name == ASSISTED:
            self._options = {"assistant_model": shallow_copy(target)}

    @torch.inference_mode()
    def answer(self, batch: Sequence[Question], samplings: Sequence[SamplingParams]) -> Outcome:
        """All questions are answered, decoded together; all samplings but their seeds are those of the first."""
        inputs = together(
            [self._encoder.process(Conversation.of(one.prompt, (one.visual,))) for one in batch], self._padding
        )
        sampling, first = samplings[0], FirstToken()
        torch.manual_seed(sampling.seed)
        drawing: dict[str, Any] = {"do_sample": False}
        if not sampling.is_greedy:
            drawing = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        output = self._target.model.generate(
            **inputs,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=self._padding,
            stopping_criteria=[first],
            **drawing,
            **self._options,
        )
        _synchronize(output.device)
        ended_s, began_s = perf_counter(), first.at_s or 0.0
        prompt_length = inputs["input_ids"].shape[1]
        answers = [self._cut(row) for row in output[:, prompt_length:].tolist()]
        num_first = first.length - prompt_length
        num_tokens = sum(max(0, len(answer) - num_first) for answer in answers)
        rounds = first.num_calls - 1
        return Outcome(
            seconds=ended_s - began_s,
            num_tokens=num_tokens,
            token_ids={one.visual.digest: answer for one, answer in zip(batch, answers, strict=True)},
            rounds=rounds if self.name in ONE_AT_A_TIME else num_tokens,
            batch_rounds=rounds,
        )

    @property
    def _padding(self) -> int:
        padding = self._target.tokenizer.pad_token_id
        return int(self._target.eos_token_ids[0] if padding is None else padding)

    def _cut(self, token_ids: list[int]) -> list[int]:
        """The answer up to its end-of-sequence token; what follows is padding."""
        for place, token_id in enumerate(token_ids):
            if token_id in self._target.eos_token_ids:
                return token_ids[: place + 1]
        return token_ids


def shallow_copy(target: PretrainedTarget) -> Any:
    """The target's first layers with its own vision tower and head, as the library's model; weights are shared.

    Assisted generation wants a small model with the same tokenizer that sees the same pictures, and a trained one does
    not exist for most targets.
    """
    model = target.model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    assistant = copy.deepcopy(model, shared)
    text = assistant.model.get_submodule(target.family.text_model)
    count = max(1, len(text.layers) // ASSISTANT_SHARE)
    text.layers = text.layers[:count]
    text.config.num_hidden_layers = count
    if getattr(text.config, "layer_types", None):
        text.config.layer_types = text.config.layer_types[:count]
    return assistant


def together(inputs: Sequence[dict[str, Any]], padding: int) -> dict[str, Any]:
    """Inputs of several prompts as ``generate`` takes them: tokens padded on the left, pictures one after the other."""
    longest = max(one["input_ids"].shape[1] for one in inputs)
    joined: dict[str, Any] = {}
    for name in inputs[0]:
        values = [torch.as_tensor(one[name]) for one in inputs]
        if values[0].shape == inputs[0]["input_ids"].shape and name != "pixel_values":
            fill = padding if name == "input_ids" else 0
            values = [F.pad(value, (longest - value.shape[1], 0), value=fill) for value in values]
        joined[name] = torch.cat(values)
    return joined


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
