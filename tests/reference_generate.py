"""The oracle: what plain transformers generates for a conversation about images and videos in memory.

It knows how each family's processor takes frames that were sampled already; it knows nothing of the engine.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports
from flashsd_ray.types import VisualInput

ensure_torchvision_imports()  # before transformers, whose processors import it

import transformers  # noqa: E402

CLOCK_HZ = 1000  # video metadata counts frames: at 1 kHz every millisecond has a frame number

Conversation = list[dict[str, object]]


class Reference(NamedTuple):
    """The prompt that the processor made and the tokens that the model answered."""

    prompt_ids: list[int]
    token_ids: list[int]  # with the end token, if there was one


@lru_cache(maxsize=8)
def load(model_dir: Path, dtype: torch.dtype = torch.float32) -> tuple[transformers.ProcessorMixin, torch.nn.Module]:
    """Returns the processor and the model of a checkpoint, the model in evaluation mode."""
    processor = transformers.AutoProcessor.from_pretrained(model_dir)
    model = transformers.AutoModelForImageTextToText.from_pretrained(model_dir, dtype=dtype)
    return processor, model.eval()


def image(frame: np.ndarray) -> VisualInput:
    """Returns an image from its pixels [H, W, 3] uint8."""
    return VisualInput(kind="image", frames=frame[None], timestamps_s=np.zeros(1))


def video(frames: np.ndarray, timestamps_s: np.ndarray, duration_s: float) -> VisualInput:
    """Returns a video from its sampled frames [F, H, W, 3] uint8 and their times [F]."""
    return VisualInput(kind="video", frames=frames, timestamps_s=np.asarray(timestamps_s), duration_s=duration_s)


def conversation(prompt: str, visuals: tuple[VisualInput, ...] = ()) -> Conversation:
    """Returns one user turn: the visuals in order, then the prompt."""
    content = [{"type": visual.kind} for visual in visuals]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]


def without_videos(messages: Conversation, visuals: tuple[VisualInput, ...]) -> tuple[Conversation, tuple]:
    """Returns the conversation with each video told as one image per frame, for models without a video placeholder."""
    remaining = iter(visuals)
    expanded: list[VisualInput] = []
    told: Conversation = []
    for message in messages:
        content: list[dict] = []
        for part in message["content"]:
            frames = [image(frame) for frame in next(remaining).frames] if part["type"] in ("image", "video") else []
            expanded += frames
            content += [{"type": "image"} for _ in frames] or [part]
        told.append({**message, "content": content})
    return told, tuple(expanded)


def video_metadata(visual: VisualInput) -> dict[str, object]:
    """Returns metadata that carries the real time of every frame, and the mean rate of the sampled frames.

    transformers reads a frame's time as `frames_indices[i] / fps` (Qwen3-VL, SmolVLM), and the rate as
    `len(frames_indices) / total_num_frames * fps` (Qwen2.5-VL).
    """
    times = visual.timestamps_s
    spacing_s = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1.0
    return {
        "fps": CLOCK_HZ,
        "frames_indices": [round(float(time) * CLOCK_HZ) for time in times],  # a fresh list: Qwen3-VL extends it
        "total_num_frames": max(1, round(spacing_s * len(times) * CLOCK_HZ)),
        "duration": visual.duration_s,
        "height": visual.frames.shape[1],
        "width": visual.frames.shape[2],
    }


def model_inputs(
    processor: transformers.ProcessorMixin, messages: Conversation, visuals: tuple[VisualInput, ...] = ()
) -> transformers.BatchFeature:
    """Returns what the model's forward takes for one conversation; no frame is dropped.

    Two things transformers 5 refuses: a Qwen3-VL video of one frame, and images beside a video in SmolVLM, whose
    processor returns both as `pixel_values`.
    """
    if getattr(processor, "video_processor", None) is None:
        messages, visuals = without_videos(messages, visuals)
    images = [Image.fromarray(visual.frames[0]) for visual in visuals if visual.kind == "image"]
    videos = [visual for visual in visuals if visual.kind == "video"]
    arguments: dict[str, object] = {}
    if images:
        arguments["images"] = [images]  # nested: one conversation's images, as apply_chat_template passes them
    if videos:
        # [F, 3, H, W]: a last axis of 3 is taken for the width when the height is 1 or 3 as well
        arguments["videos"] = [visual.frames.transpose(0, 3, 1, 2) for visual in videos]
        arguments["video_metadata"] = [video_metadata(visual) for visual in videos]
        arguments["do_sample_frames"] = False
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return processor(text=[text], return_tensors="pt", **arguments)


@torch.no_grad()
def reference(
    model_dir: Path,
    messages: Conversation,
    visuals: tuple[VisualInput, ...] = (),
    *,
    max_new_tokens: int = 32,
    dtype: torch.dtype = torch.float32,
) -> Reference:
    """Returns the greedy answer of the plain transformers path."""
    processor, model = load(model_dir, dtype)
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None  # left over from the previous conversation
    inputs = model_inputs(processor, messages, visuals)
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)  # [1, n + generated]
    prompt_ids = inputs["input_ids"][0].tolist()
    return Reference(prompt_ids, output[0, len(prompt_ids) :].tolist())
