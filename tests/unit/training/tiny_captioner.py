"""Teaches a tiny checkpoint with random weights to caption the town a little, so that its answers have sense.

What a model with random weights says is noise, and no drafter can learn noise. A minute of this
(``python -m tests.unit.training.tiny_captioner DIRECTORY 450``) gives a target of another family than the demo model
on which ``flashsd train drafter`` can be tried.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from flashsd_ray.config import MediaConfig
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.training.drafter.questions import TASKS, Question, load_visuals
from flashsd_ray.training.town.language import Task, converse
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.types import Conversation
from tests.tiny_checkpoints import checkpoint

IGNORED = -100
BATCH = 8
NUM_FRAMES = 2
CALM = 0.3  # what random weights are scaled by, so that there is something left to learn


class Example:
    """A question about a clip with the right answer, as the library's forward wants it."""

    def __init__(self, target: PretrainedTarget, encoder: LocalEncoder, seed: int, tasks: Sequence[Task]) -> None:
        stream = random.Random(f"example:{seed}")
        exchange = converse(sample_scene(seed, "train"), stream.choice(tasks), stream.randrange(2**31))
        question = Question(prompt=exchange.prompt, visuals=(f"town:train:{seed}",))
        visuals = load_visuals(question, MediaConfig(num_frames=NUM_FRAMES))
        self.inputs = encoder.process(Conversation.of(exchange.prompt, visuals))
        self.prompt = self.inputs["input_ids"][0].tolist()
        self.answer = [*target.tokenizer.encode(exchange.answer, add_special_tokens=False), target.eos_token_ids[0]]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def batch_of(examples: Sequence[Example]) -> dict[str, Any]:
    """The examples side by side, padded behind; what the library's forward wants of them."""
    longest = max(map(len, examples))
    rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for example in examples:
        missing = longest - len(example)
        rows["input_ids"].append(example.prompt + example.answer + [0] * missing)
        rows["attention_mask"].append([1] * len(example) + [0] * missing)
        rows["labels"].append([IGNORED] * len(example.prompt) + example.answer + [IGNORED] * missing)
    batch: dict[str, Any] = {name: torch.tensor(row) for name, row in rows.items()}
    for name in examples[0].inputs:
        values = [example.inputs[name] for example in examples]
        if name == "mm_token_type_ids":
            batch[name] = torch.cat([F.pad(value, (0, longest - value.shape[1])) for value in values])
        elif name not in batch:
            batch[name] = torch.cat([torch.as_tensor(value) for value in values])
    return batch


def teach(
    folder: Path, steps: int, *, family: str = "qwen25_vl", tasks: Sequence[Task] = TASKS, clips: int = 400
) -> None:
    """The folder holds the family's tiny checkpoint after so many steps of captioning."""
    target = load_target(str(checkpoint(family)), dtype="float32")
    encoder = LocalEncoder(target)
    model = target.model.train().requires_grad_(True)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(CALM)
    examples = [Example(target, encoder, seed, tasks) for seed in range(clips)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    stream = random.Random(0)
    for step in range(steps):
        rate = 4e-3 * min(1.0, (step + 1) / 20) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(**batch_of(stream.sample(examples, BATCH))).loss
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    target.processor.save_pretrained(folder)


if __name__ == "__main__":
    teach(Path(sys.argv[1]), int(sys.argv[2]))
