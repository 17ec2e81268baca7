"""Stage 1: the vision tower learns to name what each patch shows, from single frames."""

from pathlib import Path

import torch
from torch import nn
from transformers import CLIPVisionModel

from flashsd_ray.training.target.architecture import vision_config
from flashsd_ray.training.target.labels import IGNORED
from flashsd_ray.training.target.optimizer import Optimizers
from flashsd_ray.training.target.progress import (
    RunClock,
    load_checkpoint,
    log_step,
    save_checkpoint,
)
from flashsd_ray.training.target.stream import (
    ClipBatch,
    ClipStream,
    normalize,
    render_batch,
    stream_batches,
)
from flashsd_ray.training.target.worlds import DEMO, NO_OBJECT, World

BATCH_SIZE = 96
LEARNING_RATE = 1.5e-3
OBJECT_WEIGHT = 4.0  # most patches are background
AUXILIARY_WEIGHT = 0.2
HELDOUT_CLIPS = 288


class PatchClassifier(nn.Module):
    """The tower under one linear head per thing that captions speak of."""

    def __init__(self, world: World = DEMO) -> None:
        super().__init__()
        self.world = world
        config = vision_config()
        config._attn_implementation = "eager"  # faster than SDPA for 37 tokens on a CPU
        self.tower = CLIPVisionModel(config)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(config.hidden_size, size) for name, size in world.head_sizes.items()}
        )

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:  # [N, 3, S, S] uint8
        """The logits of every head for every patch, [N, P, classes] each."""
        hidden = self.tower(normalize(pixels)).last_hidden_state[:, 1:]
        hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:])
        return {name: head(hidden).float() for name, head in self.heads.items()}


def patch_targets(batch: ClipBatch, world: World) -> dict[str, torch.Tensor]:
    """The class of every patch for every head, [B * F, P] each."""
    objects = batch.objects.flatten(0, 1)
    targets = {name: objects[..., index] for index, name in enumerate(world.object_heads)}
    frames, patches = batch.objects.shape[1:3]
    scene = batch.scene.repeat_interleave(frames, dim=0)[:, :, None].expand(-1, -1, patches)
    return targets | dict(zip(world.scene_heads, scene.unbind(dim=1), strict=True))


def patch_loss(logits: dict[str, torch.Tensor], targets: dict[str, torch.Tensor], world: World) -> torch.Tensor:
    """The summed cross entropy of the heads."""
    total = torch.zeros(())
    for name, scores in logits.items():
        weight = torch.ones(scores.shape[-1])
        if name in world.object_heads:
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
    for name, target in patch_targets(batch, model.world).items():
        right = logits[name].argmax(-1) == target
        mask = target > NO_OBJECT if name in model.world.object_heads else target >= 0
        figures[f"heldout_{name}"] = right[mask].float().mean().item()
    return figures


def train_vision(
    out_dir: Path,
    minutes: float,
    seed: int,
    *,
    is_resumed: bool,
    world: World = DEMO,
    steps: int | None = None,  # None: until the minutes are over
) -> Path:
    """`vision.pt` in `out_dir` holds a trained tower; returns its path."""
    torch.manual_seed(seed)
    path = out_dir / "vision.pt"
    model = PatchClassifier(world)
    compile_tower(model)
    optimizers = Optimizers(model.named_parameters(), LEARNING_RATE)
    clock = RunClock(minutes, steps=steps)
    if is_resumed and path.exists():
        state = load_checkpoint(path)
        model.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
        clock = RunClock(minutes, state["spent_s"], steps=steps, step=state["step"])
    heldout = render_batch(
        ClipStream(split="heldout", first_seed=0, batch_size=HELDOUT_CLIPS, frame_counts=(1,), world=world), 0
    )
    stream = ClipStream(split="train", first_seed=seed * 10**9, batch_size=BATCH_SIZE, frame_counts=(1,), world=world)

    def save() -> None:
        figures = patch_accuracy(model, heldout)
        log_step("vision heldout", clock.step, clock, figures)
        state = {"model": model.state_dict(), "optimizers": optimizers.state_dict()}
        extra = {"step": clock.step, "spent_s": clock.spent_s, "figures": figures, "seed": seed}
        save_checkpoint(path, state | extra | {"is_done": clock.is_done})

    for batch in stream_batches(stream, first_batch=clock.step):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch.pixels.flatten(0, 1))
        loss = patch_loss(logits, patch_targets(batch, world), world)
        torch.autograd.backward(loss)
        norm = optimizers.step(clock.progress)
        clock.step += 1
        if clock.is_log_due():
            log_step("vision", clock.step, clock, {"loss": loss.item(), "gradient": norm})
        if clock.is_save_due():
            save()
        if clock.is_over:
            break
    save()
    return path
