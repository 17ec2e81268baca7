"""What a target says about held-out clips, held against what is true.

`python -m flashsd_ray.training.target.evaluate --target DIR --clips 100`
"""

import argparse
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from flashsd_ray.training.target.architecture import FRAMES_PER_CLIP
from flashsd_ray.training.target.package import MAX_NEW_TOKENS, build_processor
from flashsd_ray.training.world.catalog import KINDS, PLACES
from flashsd_ray.training.world.language import Task, converse
from flashsd_ray.training.world.phrases import TIMES, WEATHER
from flashsd_ray.training.world.render import Clip, clip
from flashsd_ray.training.world.scene import Scene

logger = logging.getLogger(__name__)

FIRST_SEED = 500_000  # of the held-out split
RENDER_SIZE = 384
BATCH_SIZE = 12
DETAIL_PROMPT = "Describe the video in detail."
QUESTIONS: tuple[Task, ...] = ("count", "enter", "place")


@dataclass(kw_only=True)
class Tally:
    """Counts behind the figures."""

    found: int = 0
    said: int = 0
    present: int = 0
    right: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def note(self, name: str, *, is_right: bool) -> None:
        """One more answer of this name is counted."""
        self.right[name] = self.right.get(name, 0) + int(is_right)
        self.asked[name] = self.asked.get(name, 0) + 1

    def figures(self) -> dict[str, float]:
        """Precision, recall and F1 of objects, and the share right of everything else."""
        precision = self.found / max(1, self.said)
        recall = self.found / max(1, self.present)
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        shares = {f"{name}_accuracy": self.right[name] / count for name, count in self.asked.items()}
        return {"object_precision": precision, "object_recall": recall, "object_f1": f1} | shares


def mentioned_kinds(text: str) -> set[str]:
    """The kinds of object that the text names."""
    lowered = text.lower()
    return {
        kind.name
        for kind in KINDS.values()
        if re.search(rf"\b({re.escape(kind.name)}|{re.escape(kind.plural)})\b", lowered)
    }


def is_phrase_in(text: str, phrases: tuple[str, ...]) -> bool:
    """Whether the text holds any of the phrases, whatever the case."""
    return any(phrase.lower() in text.lower() for phrase in phrases)


def score_caption(tally: Tally, scene: Scene, caption: str) -> None:
    """The caption's objects, place, time and weather are counted in the tally."""
    said, true = mentioned_kinds(caption), {group.kind for group in scene.groups}
    tally.found += len(said & true)
    tally.said += len(said)
    tally.present += len(true)
    tally.note("place", is_right=is_phrase_in(caption, PLACES[scene.place].phrases))
    if PLACES[scene.place].has_sky:
        tally.note("time", is_right=is_phrase_in(caption, TIMES[scene.time_of_day]))
        tally.note("weather", is_right=is_phrase_in(caption, WEATHER[scene.weather]))
    tally.note("exact_objects", is_right=said == true)


def score_answer(tally: Tally, scene: Scene, task: Task, truth: str, answer: str) -> None:
    """The answer to a question is counted in the tally."""
    if task == "count":
        tally.note("count", is_right=answer == truth)
    elif task == "enter":
        late = {group.kind for group in scene.groups if group.enters_halfway}
        tally.note("enter", is_right=mentioned_kinds(answer) == late)
    else:
        tally.note("place_question", is_right=is_phrase_in(answer, PLACES[scene.place].phrases))


@torch.no_grad()
def ask(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    clips: list[Clip],
    prompts: list[str],
) -> list[str]:
    """The greedy answers to one prompt per clip, asked as one batch."""
    texts = []
    for shown, prompt in zip(clips, prompts, strict=True):
        content: list[dict[str, str]] = [{"type": "image"}] * len(shown.frames) + [{"type": "text", "text": prompt}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        texts.append(processor.apply_chat_template(messages, add_generation_prompt=True))
    images = [[Image.fromarray(frame) for frame in shown.frames] for shown in clips]
    inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    most = model.generation_config.max_new_tokens or MAX_NEW_TOKENS
    tokens: Any = model.generate(**inputs, max_new_tokens=most, do_sample=False)
    answers = tokens[:, inputs["input_ids"].shape[1] :]
    decoded: list[str] = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return decoded


def evaluate_target(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    *,
    clip_count: int,
    frame_count: int = FRAMES_PER_CLIP,
    questions: tuple[Task, ...] = QUESTIONS,
) -> dict[str, float]:
    """The figures of this model on the first held-out clips."""
    model.train(mode=False)
    processor = build_processor(tokenizer)
    tally = Tally()
    for first in range(0, clip_count, BATCH_SIZE):
        seeds = range(FIRST_SEED + first, FIRST_SEED + min(first + BATCH_SIZE, clip_count))
        clips = [clip(seed, "heldout", frame_count=frame_count, size_px=RENDER_SIZE) for seed in seeds]
        captions = ask(model, processor, clips, [DETAIL_PROMPT] * len(clips))
        for shown, caption in zip(clips, captions, strict=True):
            score_caption(tally, shown.scene, caption)
        logger.info("heldout %d: %s", seeds[0], captions[0])
        for task in questions:
            exchanges = [converse(shown.scene, task, 0) for shown in clips]
            answers = ask(model, processor, clips, [exchange.prompt for exchange in exchanges])
            for shown, exchange, answer in zip(clips, exchanges, answers, strict=True):
                score_answer(tally, shown.scene, task, exchange.answer, answer)
    return tally.figures()


def main() -> None:
    """The figures of the target named on the command line are in the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--frames", type=int, default=FRAMES_PER_CLIP)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model: Any = AutoModelForImageTextToText.from_pretrained(arguments.target)
    processor: Any = AutoProcessor.from_pretrained(arguments.target)
    figures = evaluate_target(model, processor.tokenizer, clip_count=arguments.clips, frame_count=arguments.frames)
    logger.info("%s", json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
