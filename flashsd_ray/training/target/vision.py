"""Stage 1: the vision tower learns to name what each patch shows, from single frames."""

from pathlib import Path

import torch
from torch import nn
from transformers import CLIPVisionModel

from flashsd_ray.training.optimizer import Optimizers
from flashsd_ray.training.target.architecture import vision_config
from flashsd_ray.training.target.labels import IGNORED
from flashsd_ray.training.target.progress import StageRun
from flashsd_ray.training.target.settings import Stage, is_inner, rates
from flashsd_ray.training.target.stream import (
    ClipBatch,
    ClipStream,
    normalize,
    render_batch,
    stream_batches,
)
from flashsd_ray.training.town.teaching import HEAD_SIZES, NO_OBJECT, OBJECT_HEADS, SCENE_HEADS

BATCH_SIZE = 96
LEARNING_RATE = 1.5e-3
OBJECT_WEIGHT = 4.0  # most patches are background
AUXILIARY_WEIGHT = 0.2
HELDOUT_CLIPS = 288


class PatchClassifier(nn.Module):
    """The tower under one linear head per thing that captions speak of."""

    def __init__(self) -> None:
        super().__init__()
        config = vision_config()
        config._attn_implementation = "eager"  # faster than SDPA for 37 tokens on a CPU
        self.tower = CLIPVisionModel(config)
        self.heads = nn.ModuleDict({name: nn.Linear(config.hidden_size, size) for name, size in HEAD_SIZES.items()})

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:  # [N, 3, S, S] uint8
        """The logits of every head for every patch, [N, P, classes] each."""
        hidden = self.tower(normalize(pixels)).last_hidden_state[:, 1:]
        hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:])
        return {name: head(hidden).float() for name, head in self.heads.items()}


def patch_targets(batch: ClipBatch) -> dict[str, torch.Tensor]:
    """The class of every patch for every head, [B * F, P] each."""
    objects = batch.objects.flatten(0, 1)
    targets = {name: objects[..., index] for index, name in enumerate(OBJECT_HEADS)}
    frames, patches = batch.objects.shape[1:3]
    scene = batch.scene.repeat_interleave(frames, dim=0)[:, :, None].expand(-1, -1, patches)
    return targets | dict(zip(SCENE_HEADS, scene.unbind(dim=1), strict=True))


def patch_loss(logits: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
    """The summed cross entropy of the heads."""
    total = torch.zeros(())
    for name, scores in logits.items():
        weight = torch.ones(scores.shape[-1])
        if name in OBJECT_HEADS:
            weight[NO_OBJECT] = 1.0 / OBJECT_WEIGHT
        losses = nn.functional.cross_entropy(
            scores.flatten(0, 1), targets[name].flatten(), weight, ignore_index=IGNORED
        )
        total = total + losses * (1.0 if name == "kind" else AUXILIARY_WEIGHT)
    return total


def compile_tower(model: PatchClassifier) -> None:
    """The tower's layers run compiled; one compilation serves all."""
    for layer in model.tower.encoder.layers:
        layer.compile(dynamic=False)


@torch.no_grad()
def patch_accuracy(model: PatchClassifier, batch: ClipBatch) -> dict[str, float]:
    """Accuracy on held-out frames; object heads over object patches only."""
    pieces = batch.pixels.flatten(0, 1).split(BATCH_SIZE)  # of the one shape that is compiled
    with torch.autocast("cpu", torch.bfloat16):
        scores = [model(pixels) for pixels in pieces]
    logits = {name: torch.cat([score[name] for score in scores]) for name in scores[0]}
    figures = {}
    for name, target in patch_targets(batch).items():
        right = logits[name].argmax(-1) == target
        mask = target > NO_OBJECT if name in OBJECT_HEADS else target >= 0
        figures[name] = right[mask].float().mean().item()
    return figures


def train_vision(stage: Stage) -> Path:
    """The stage's checkpoint holds a trained tower; returns its path."""
    torch.manual_seed(stage.seed)
    model = PatchClassifier()
    compile_tower(model)
    optimizers = Optimizers(model.named_parameters(), rates(LEARNING_RATE), is_inner)
    run = StageRun(stage, model, optimizers)
    heldout = render_batch(ClipStream(split="heldout", first_seed=0, batch_size=HELDOUT_CLIPS, frame_counts=(1,)), 0)
    stream = ClipStream(split="train", first_seed=stage.seed * 10**9, batch_size=BATCH_SIZE, frame_counts=(1,))

    def save() -> None:
        figures = patch_accuracy(model, heldout)
        run.report(figures, is_heldout=True)
        run.save(figures=figures)

    for batch in stream_batches(stream, first_batch=run.clock.step):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch.pixels.flatten(0, 1))
        loss = patch_loss(logits, patch_targets(batch))
        torch.autograd.backward(loss)
        norm = optimizers.step(run.clock.progress)
        run.clock.step += 1
        run.report({"loss": loss.item(), "gradient": norm})
        if run.is_save_due:
            save()
        if run.clock.is_over:
            break
    save()
    return stage.path
