"""The model of the later stages: frozen vision tower from stage 1, bf16 weights, compiled layers."""

from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from flashsd_ray.training.target.package import build_model
from flashsd_ray.training.target.progress import load_checkpoint
from flashsd_ray.training.target.stream import normalize

TOWER_PREFIX = "tower."


def build_with_tower(tokenizer: PreTrainedTokenizerFast, vision_path: Path) -> LlavaForConditionalGeneration:
    """A target whose vision tower is the trained one, frozen; the rest is untrained."""
    model = build_model(tokenizer)
    state = load_checkpoint(vision_path)["model"]
    tower = {name.removeprefix(TOWER_PREFIX): value for name, value in state.items() if name.startswith(TOWER_PREFIX)}
    model.model.vision_tower.load_state_dict(tower)
    model.model.vision_tower.requires_grad_(requires_grad=False)
    for parameter in model.parameters():  # buffers, such as rotary frequencies, stay float32
        parameter.data = parameter.data.to(torch.bfloat16)
    model.model.vision_tower.config._attn_implementation = "eager"
    model.model.language_model.config._attn_implementation = "eager"
    return model


def compile_layers(model: LlavaForConditionalGeneration) -> None:
    """Every layer runs compiled; one compilation serves all layers of a tower."""
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=False)
    for layer in model.model.vision_tower.encoder.layers:
        layer.compile(dynamic=False)


@torch.no_grad()
def patch_features(
    model: LlavaForConditionalGeneration,
    pixels: torch.Tensor,  # [B, F, 3, S, S] uint8
) -> torch.Tensor:  # [B, F * P, vision hidden]
    """The frozen tower's features of every patch, in frame order."""
    frames = normalize(pixels.flatten(0, 1)).to(torch.bfloat16)
    hidden: torch.Tensor = model.model.vision_tower(frames).last_hidden_state[:, 1:]
    return hidden.unflatten(0, pixels.shape[:2]).flatten(1, 2)
