"""Our plain decoding against ``generate`` of the transformers library: same weights, same prompts, same tokens asked.

A slow baseline would flatter speculation, so plain decoding has to stand on its own first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from flashsd_ray.bench.intervals import Ratio, ratio_of_totals
from flashsd_ray.config import Config, SpeculationConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.types import CaptionRequest, SamplingParams, VisualInput

PICTURE = 224  # pixels each way


@dataclass(frozen=True, slots=True)
class Comparison:
    """One batch size: tokens per second of both, and their ratio."""

    batch_size: int
    lengths: str  # of the prompts: equal or mixed
    generate_tokens_per_s: float
    engine_tokens_per_s: float
    ratio: Ratio


def questions(batch_size: int, mixed: bool, seed: int) -> list[tuple[str, VisualInput]]:
    """Distinct pictures of noise and questions of equal or of different length."""
    source = np.random.default_rng(seed)
    asked = []
    for index in range(batch_size):
        pixels = source.integers(0, 255, (1, PICTURE, PICTURE, 3), dtype=np.uint8)
        picture = VisualInput(kind="image", frames=pixels, timestamps_s=np.zeros(1))
        asked.append(("Describe what happens here" + " and why" * (3 * index if mixed else 3) + ".", picture))
    return asked


def compare(
    target: PretrainedTarget,
    *,
    batch_size: int,
    mixed: bool,
    num_tokens: int,
    repeats: int,
) -> Comparison:
    """Whole answers, vision and prefill included, timed alternately after one warm-up of each."""
    engine = Engine.around(target, Config(speculation=SpeculationConfig(drafter="none")))
    times: dict[str, list[float]] = {"generate": [], "engine": []}
    for repeat in range(repeats + 1):
        asked = questions(batch_size, mixed, seed=repeat)
        inputs = _processed(target, asked)
        requests = [
            CaptionRequest(
                request_id=str(index),
                prompt=prompt,
                visuals=(picture,),
                sampling=SamplingParams(max_new_tokens=num_tokens, ignore_eos=True),
            )
            for index, (prompt, picture) in enumerate(asked)
        ]
        order = ("generate", "engine") if repeat % 2 else ("engine", "generate")
        for name in order:
            seconds = (
                _time_generate(target, inputs, num_tokens) if name == "generate" else _time_engine(engine, requests)
            )
            if repeat:
                times[name].append(seconds)
    tokens = batch_size * num_tokens * repeats
    return Comparison(
        batch_size=batch_size,
        lengths="mixed" if mixed else "equal",
        generate_tokens_per_s=tokens / sum(times["generate"]),
        engine_tokens_per_s=tokens / sum(times["engine"]),
        ratio=ratio_of_totals(times["generate"], times["engine"]),
    )


def _time_engine(engine: Engine, requests: Sequence[CaptionRequest]) -> float:
    began_s = perf_counter()
    answers: Iterator[object] = engine.caption_many(requests)
    count = sum(1 for _ in answers)
    seconds = perf_counter() - began_s
    if count != len(requests):
        raise RuntimeError(f"{count} of {len(requests)} requests were answered")
    return seconds


@torch.inference_mode()
def _time_generate(target: PretrainedTarget, inputs: Any, num_tokens: int) -> float:
    began_s = perf_counter()
    output = target.model.generate(
        **inputs, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False, pad_token_id=0
    )
    seconds = perf_counter() - began_s
    if output.shape[1] - inputs["input_ids"].shape[1] != num_tokens:
        raise RuntimeError(f"generate made {output.shape[1] - inputs['input_ids'].shape[1]} tokens, not {num_tokens}")
    return seconds


def _processed(target: PretrainedTarget, asked: Sequence[tuple[str, VisualInput]]) -> Any:
    """One left-padded batch, as ``generate`` takes it; done outside the timing (ours is inside)."""
    processor = target.processor
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for prompt, _ in asked
    ]
    pictures = [[picture.frames[0]] for _, picture in asked]
    processor.tokenizer.padding_side = "left"
    inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    dtype = target.model.dtype
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
