"""What a target says about held-out clips of the town, held against what is true.

`python -m flashsd_ray.training.town.evaluate --target DIR --clips 500` (`--split novel` for kinds never seen together)
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports
from flashsd_ray.training.target.architecture import FRAMES_PER_CLIP
from flashsd_ray.training.target.evaluate import ask
from flashsd_ray.training.target.package import build_processor
from flashsd_ray.training.town.checking import Tally, check
from flashsd_ray.training.town.language import SMALL_TASKS, Exchange, Task, converse
from flashsd_ray.training.town.render import clip
from flashsd_ray.training.town.scene import Split

logger = logging.getLogger(__name__)

FIRST_SEED = 500_000
RENDER_SIZE = 384
BATCH_SIZE = 12
LONG_TASKS: tuple[Task, ...] = ("detail", "json")


def evaluate_target(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    *,
    clip_count: int,
    split: Split = "heldout",
    frame_count: int = FRAMES_PER_CLIP,
    is_thorough: bool = False,  # every question about every clip; else one about each
) -> dict[str, float]:
    """The figures of this model on the first clips of the split."""
    model.train(mode=False)
    processor = build_processor(tokenizer)
    tally = Tally()
    for first in range(0, clip_count, BATCH_SIZE):
        seeds = range(FIRST_SEED + first, FIRST_SEED + min(first + BATCH_SIZE, clip_count))
        clips = [clip(seed, split, frame_count=frame_count, size_px=RENDER_SIZE) for seed in seeds]
        rounds: list[list[Task]] = [[task] * len(clips) for task in LONG_TASKS]
        if is_thorough:
            rounds += [[task] * len(clips) for task in SMALL_TASKS]
        else:
            rounds.append([SMALL_TASKS[seed % len(SMALL_TASKS)] for seed in seeds])
        for tasks in rounds:
            exchanges = [converse(shown.scene, task, 0) for shown, task in zip(clips, tasks, strict=True)]
            answers = ask(model, processor, clips, [_prompt(exchange) for exchange in exchanges])
            for shown, exchange, answer in zip(clips, exchanges, answers, strict=True):
                check(tally, shown.scene, exchange, answer)
            logger.info("%s %d: %s | %s", split, seeds[0], exchanges[0].prompt, answers[0])
    return tally.figures()


def _prompt(exchange: Exchange) -> str:
    return "Describe the video in detail." if exchange.task == "detail" else exchange.prompt


def main() -> None:
    """The figures of the target named on the command line are in the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--frames", type=int, default=FRAMES_PER_CLIP)
    parser.add_argument("--split", choices=("heldout", "novel"), default="heldout")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ensure_torchvision_imports()
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model: Any = AutoModelForImageTextToText.from_pretrained(arguments.target)
    processor: Any = AutoProcessor.from_pretrained(arguments.target)
    figures = evaluate_target(
        model,
        processor.tokenizer,
        clip_count=arguments.clips,
        split=arguments.split,
        frame_count=arguments.frames,
        is_thorough=True,
    )
    logger.info("%s", json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
