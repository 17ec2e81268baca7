"""The library's own forward of a whole model, up to its language model.

It merges visual features into the embedded prompt and works out rotary positions, differently for every family. We let
it do so and take what it is about to hand to its language model: nothing of that is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flashsd_ray.errors import CheckpointError
from flashsd_ray.models.preprocessing import Modality
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.models.vision import LibraryOutput
from flashsd_ray.types import EncodedPrompt, VisualSegment


class _Reached(Exception):  # noqa: N818 - not an error: it ends the library's forward where we want it to end
    """The language model was called."""


def merged(
    target: PretrainedTarget,
    inputs: Mapping[str, Any],  # of the library's forward, without pixels
    vision: Mapping[Modality, LibraryOutput],  # what it would make of the pixels
    segments: tuple[VisualSegment, ...],
) -> EncodedPrompt:
    """The prompt as the language model is handed it. One thread at a time: the hook is on the model.

    Raises:
        ValueError: placeholders and visual tokens do not match.
        CheckpointError: the library's model never calls its language model.
    """
    captured = _run_until_language_model(target, {**inputs, "mm_encoder_outputs": dict(vision) or None})
    token_ids = tuple(inputs["input_ids"][0].tolist())
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
        segments=segments,
        deepstack=tuple(captured.get("deepstack_visual_embeds") or ()),
    )


def _run_until_language_model(target: PretrainedTarget, arguments: dict[str, Any]) -> dict[str, Any]:
    captured: dict[str, Any] = {}

    def stop(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        captured.update(kwargs)
        raise _Reached

    hook = target.text_model.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        target.model.model(**arguments, use_cache=False)
    except _Reached:
        return captured
    finally:
        hook.remove()
    raise CheckpointError(f"{target.name}: the forward ended without reaching the language model")
