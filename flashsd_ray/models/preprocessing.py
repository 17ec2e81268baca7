"""What the library's processor makes of a conversation: token ids, and pixels as the vision tower takes them.

Two ways in. The processor's own call does everything at once. Where each image stands for itself, pixels are made only
of images that were not seen before, and a prompt is put together around visual tokens that are there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.chat import ChatFormat, refusal
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.types import Conversation, VisualInput, VisualTokens

CLOCK_HZ = 1000  # video metadata counts frames: at 1 kHz every millisecond has a number
REFUSALS = (ValueError, TypeError, IndexError, ZeroDivisionError)  # how the library says that it cannot take an input
Modality = Literal["image", "video"]
PIXELS: dict[Modality, tuple[str, str]] = {  # names that the library gives them
    "image": ("pixel_values", "image_grid_thw"),
    "video": ("pixel_values_videos", "video_grid_thw"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """One picture, resized and normalised."""

    modality: Modality
    values: Tensor  # [1, 3, H, W], or [patches, values] where the family sends patches
    grid: tuple[int, ...] = ()  # patches in time, height and width, where the family sends patches


class Preprocessor:
    """Calls the processor of one target."""

    def __init__(self, target: PretrainedTarget, max_aspect_ratio: float) -> None:
        self._target = target
        self._max_aspect_ratio = max_aspect_ratio
        self.format = ChatFormat(target)

    def everything(self, conversation: Conversation) -> dict[str, Any]:
        """The keyword arguments of the library's forward, for pictures as the family takes them.

        Raises:
            InvalidRequestError: the model cannot take this combination of text and pictures.
        """
        text = self.format.write(conversation)
        self._check(conversation.visuals)
        options: dict[str, Any] = {"text": [text], "return_tensors": "pt", "add_special_tokens": self._adds(text)}
        images = [Image.fromarray(visual.frames[0]) for visual in conversation.visuals if visual.kind == "image"]
        videos = [visual for visual in conversation.visuals if visual.kind == "video"]
        if images:
            options["images"] = [images]
        if videos:
            # Channels first: a last axis of 3 would be taken for the width of frames that are 1 or 3 high.
            options["videos"] = [video.frames.transpose(0, 3, 1, 2) for video in videos]
            options |= {"video_metadata": [video_metadata(video) for video in videos], "do_sample_frames": False}
        try:
            inputs = self._target.processor(**options)
        except REFUSALS as error:
            raise refusal(error) from error
        return self._on_device(inputs)

    def pixels(self, images: Sequence[VisualInput]) -> list[Pixels]:
        """Each image as the vision tower takes it, whatever other images are made ready with it.

        Raises:
            InvalidRequestError: an image has a shape that the model cannot take.
        """
        if not images:
            return []
        self._check(images)
        pictures = [Image.fromarray(image.frames[0]) for image in images]
        try:
            made = self._target.processor.image_processor(images=pictures, return_tensors="pt")
        except REFUSALS as error:
            raise refusal(error) from error
        return split_pixels(self._on_device(made), "image")

    def around(self, text: str, images: Sequence[VisualTokens]) -> dict[str, Any]:
        """The keyword arguments of the library's forward but the pixels, with as many rows as the images have.

        Raises:
            InvalidRequestError: the text has no place, or more than one, for some image.
        """
        processor = self._target.processor
        word = processor.image_token
        pieces = text.split(word)
        if len(pieces) != len(images) + 1:
            raise InvalidRequestError(
                f"the model's chat template has {len(pieces) - 1} places for {len(images)} images"
            )
        places = [word * len(tokens) for tokens in images]
        expanded = "".join(part for pair in zip(pieces, [*places, ""], strict=True) for part in pair)
        try:
            inputs = dict(
                processor.tokenizer(
                    [expanded],
                    return_tensors="pt",
                    return_token_type_ids=False,
                    add_special_tokens=self._adds(expanded),
                )
            )
        except REFUSALS as error:
            raise refusal(error) from error
        if "mm_token_type_ids" in processor.model_input_names:
            inputs["mm_token_type_ids"] = torch.tensor(processor.create_mm_token_type_ids(inputs["input_ids"].tolist()))
        if images and images[0].grid:
            inputs["image_grid_thw"] = torch.tensor([tokens.grid for tokens in images])
        return self._on_device(inputs)

    def _check(self, visuals: Sequence[VisualInput]) -> None:
        for visual in visuals:
            short, long = sorted(visual.frames.shape[1:3])
            if long > self._max_aspect_ratio * short:
                raise InvalidRequestError(
                    f"encoding.max_aspect_ratio allows {self._max_aspect_ratio:g}, {visual.source or 'a picture'} is "
                    f"{visual.frames.shape[2]} x {visual.frames.shape[1]}"
                )

    def _adds(self, text: str) -> bool:
        """Whether the tokenizer is to add the tokens that it begins a text with; many templates wrote them already."""
        begin = self._target.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def _on_device(self, inputs: Any) -> dict[str, Any]:
        model = self._target.model
        return {
            key: value.to(model.device, model.dtype if value.is_floating_point() else None)
            if isinstance(value, Tensor)
            else value
            for key, value in inputs.items()
        }


def split_pixels(inputs: dict[str, Any], modality: Modality) -> list[Pixels]:
    """The pictures of one modality, one by one; the processor lays them end to end."""
    pixels_name, grid_name = PIXELS[modality]
    pixels = inputs.get(pixels_name)
    if pixels is None:
        return []
    grids = inputs.get(grid_name)
    if grids is None:
        return [Pixels(modality, values) for values in pixels.split(1)]
    shapes = [tuple(grid) for grid in grids.tolist()]
    sizes = grids.prod(-1).tolist()
    return [Pixels(modality, *pair) for pair in zip(pixels.split(sizes), shapes, strict=True)]


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
