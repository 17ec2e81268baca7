"""Prompt and pictures in, rows for the language model out.

The library's own forward merges visual features into the embedded prompt and works out rotary positions, differently
for every family. We let it do so and take what it is about to hand to its language model: nothing of that is ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from flashsd_ray.errors import CheckpointError, InvalidRequestError
from flashsd_ray.models.pretrained import Family, PretrainedTarget
from flashsd_ray.types import EncodedPrompt, VisualInput, VisualSegment

CLOCK_HZ = 1000  # video metadata counts frames: at 1 kHz every millisecond has a number


class _Reached(Exception):  # noqa: N818 - not an error: it ends the library's forward where we want it to end
    """The language model was called."""


class LocalEncoder:
    """Runs the processor, the vision tower and the projector of a target in this process."""

    def __init__(self, target: PretrainedTarget) -> None:
        self._target = target

    @torch.inference_mode()
    def encode(self, prompt: str, visuals: Sequence[VisualInput]) -> EncodedPrompt:
        """The prompt with visual features in place.

        Raises:
            InvalidRequestError: the model cannot take this combination of text and pictures.
        """
        inputs = self.process(prompt, visuals)
        token_ids = tuple(inputs["input_ids"][0].tolist())
        captured = self._run_until_language_model(inputs)
        embeddings = captured["inputs_embeds"][0]
        positions = captured.get("position_ids")
        if positions is None:
            positions = torch.arange(len(token_ids), device=embeddings.device)[None]
        elif positions.ndim == 3:
            positions = positions[-3:, 0]  # a fourth axis, when there, numbers text positions for packing
        return EncodedPrompt(
            token_ids=token_ids,
            embeddings=embeddings,
            positions=positions,
            segments=self._segments(token_ids, visuals),
            deepstack=tuple(captured.get("deepstack_visual_embeds") or ()),
        )

    def process(self, prompt: str, visuals: Sequence[VisualInput]) -> dict[str, Any]:
        """What the library's processor makes of prompt and pictures: the keyword arguments of its forward.

        Raises:
            InvalidRequestError: the model cannot take this combination of text and pictures.
        """
        processor = self._target.processor
        told = tell(visuals, self._target.family)
        content = [{"type": visual.kind} for visual in told] + [{"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        options: dict[str, Any] = {"text": [text], "return_tensors": "pt"}
        images = [Image.fromarray(visual.frames[0]) for visual in told if visual.kind == "image"]
        videos = [visual for visual in told if visual.kind == "video"]
        if images:
            options["images"] = [images]
        if videos:
            # Channels first: a last axis of 3 would be taken for the width of frames that are 1 or 3 high.
            options["videos"] = [video.frames.transpose(0, 3, 1, 2) for video in videos]
            options |= {"video_metadata": [video_metadata(video) for video in videos], "do_sample_frames": False}
        try:
            inputs = dict(processor(**options))
        except (ValueError, TypeError, IndexError) as error:
            raise self._refused(error) from error
        return {key: _on(value, self._target) for key, value in inputs.items()}

    def _run_until_language_model(self, inputs: dict[str, Any]) -> dict[str, Any]:
        captured: dict[str, Any] = {}

        def stop(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
            captured.update(kwargs)
            raise _Reached

        model = self._target.model.model
        if hasattr(model, "rope_deltas"):
            model.rope_deltas = None  # the library keeps those of the last prompt
        hook = self._target.text_model.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            model(**inputs, use_cache=False)
        except _Reached:
            return captured
        except ValueError as error:
            raise self._refused(error) from error
        finally:
            hook.remove()
        raise CheckpointError(f"{self._target.name}: the forward ended without reaching the language model")

    def _refused(self, error: Exception) -> InvalidRequestError:
        return InvalidRequestError(f"{self._target.name} cannot take this prompt and its pictures: {error}")

    def _segments(self, token_ids: Sequence[int], visuals: Sequence[VisualInput]) -> tuple[VisualSegment, ...]:
        runs, position = [], 0
        for is_visual, run in itertools.groupby(token_ids, self._target.placeholder_ids.__contains__):
            length = len(list(run))
            if is_visual:
                runs.append((position, length))
            position += length
        told = tell(visuals, self._target.family)
        if self._target.family.independent_images and len(runs) == len(told):
            digests = [visual.digest for visual in told]
        else:
            # Rows may depend on every picture of the request: they are only equal where all of it is.
            whole = "+".join(visual.digest for visual in told)
            digests = [f"{whole}#{index}" for index in range(len(runs))]
        return tuple(
            VisualSegment(start=start, num_tokens=length, digest=digest)
            for (start, length), digest in zip(runs, digests, strict=True)
        )


def tell(visuals: Sequence[VisualInput], family: Family) -> list[VisualInput]:
    """The pictures as the family's processor can take them: where it knows no video, every frame is an image."""
    kinds = {visual.kind for visual in visuals}
    as_video = family.takes_video and (family.mixes_video or kinds == {"video"})
    told: list[VisualInput] = []
    for visual in visuals:
        if visual.kind == "video" and not as_video:
            told += [
                VisualInput(kind="image", frames=frame[None], timestamps_s=np.zeros(1), source=visual.source)
                for frame in visual.frames
            ]
        elif visual.kind == "video" and len(visual.frames) < family.min_video_frames:
            count = family.min_video_frames
            told.append(
                replace(
                    visual,
                    frames=visual.frames.repeat(count, axis=0)[:count],
                    timestamps_s=visual.timestamps_s.repeat(count)[:count],
                )
            )
        else:
            told.append(visual)
    return told


def video_metadata(video: VisualInput) -> dict[str, Any]:
    """What transformers' video processors are told of frames that are sampled already.

    They read a frame's time as ``frames_indices[i] / fps`` and the mean rate as ``len(frames_indices) /
    total_num_frames * fps``; a clock of 1 kHz thus carries real times.
    """
    times = video.timestamps_s
    spacing_s = float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1.0
    return {
        "fps": CLOCK_HZ,
        "frames_indices": [round(float(time) * CLOCK_HZ) for time in times],
        "total_num_frames": max(1, round(spacing_s * len(times) * CLOCK_HZ)),
        "duration": video.duration_s,
        "height": video.frames.shape[1],
        "width": video.frames.shape[2],
    }


def _on(value: Any, target: PretrainedTarget) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(target.model.device, target.model.dtype if value.is_floating_point() else None)
