"""What a target says about clips that training never showed, held against what is true.

`python -m flashsd_ray.training.town.evaluate --target DIR --clips 500` asks everything about every clip of two splits:
`heldout`, other seeds, and `novel`, kinds that training never shows together. The answers are those of transformers'
`generate`, greedy; nothing of the engine takes part. Standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports
from flashsd_ray.training.target.architecture import FRAMES_PER_CLIP
from flashsd_ray.training.target.package import MAX_NEW_TOKENS, build_processor
from flashsd_ray.training.town.checking import Tally, check
from flashsd_ray.training.town.language import SMALL_TASKS, Exchange, Task, converse
from flashsd_ray.training.town.render import Clip, clip
from flashsd_ray.training.town.scene import Split

if TYPE_CHECKING:  # transformers may be imported only after torchvision has been seen to
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

FIRST_SEED = 500_000
VALIDATION_SEED = 450_000  # of the clips that a training looks at meanwhile
RENDER_SIZE = 384
BATCH_SIZE = 25
LONG_TASKS: tuple[Task, ...] = ("detail", "json")
DETAIL_PROMPT = "Describe the video in detail."


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
    split: Split = "heldout",
    first_seed: int = FIRST_SEED,
    frame_count: int = FRAMES_PER_CLIP,
    is_thorough: bool = False,  # every question about every clip; else one about each
    on_clips: Callable[[int], None] = lambda done: None,
) -> Tally:
    """How this model does on successive clips of the split."""
    model.train(mode=False)
    processor = build_processor(tokenizer)
    tally = Tally()
    for first in range(0, clip_count, BATCH_SIZE):
        seeds = range(first_seed + first, first_seed + min(first + BATCH_SIZE, clip_count))
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
        on_clips(first + len(clips))
    return tally


def _prompt(exchange: Exchange) -> str:
    return DETAIL_PROMPT if exchange.task == "detail" else exchange.prompt


def main() -> None:
    """The figures of the target named on the command line are on standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=500, help="of each split (500)")
    parser.add_argument("--frames", type=int, default=FRAMES_PER_CLIP)
    parser.add_argument("--split", nargs="+", choices=("heldout", "novel"), default=["heldout", "novel"])
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the same")
    arguments = parser.parse_args()
    ensure_torchvision_imports()
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model: Any = AutoModelForImageTextToText.from_pretrained(arguments.target)
    processor: Any = AutoProcessor.from_pretrained(arguments.target)
    result: dict[str, Any] = {"clips": arguments.clips, "frames": arguments.frames, "dtype": str(model.dtype)}
    for split in arguments.split:

        def say(done: int, split: str = split) -> None:
            sys.stderr.write(f"{split}: {done} of {arguments.clips} clips\n")

        tally = evaluate_target(
            model,
            processor.tokenizer,
            clip_count=arguments.clips,
            split=split,
            frame_count=arguments.frames,
            is_thorough=True,
            on_clips=say,
        )
        figures = {name: round(value, 4) for name, value in tally.figures().items()}
        result[split] = {"figures": figures, "judged": dict(sorted(tally.asked.items()))}
    text = json.dumps(result, indent=1) + "\n"
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
