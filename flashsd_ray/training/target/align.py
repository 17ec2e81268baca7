"""Stage 2: the projector and the word embeddings meet, with no text model in between."""

from pathlib import Path

import torch

from flashsd_ray.training.target.frozen import build_with_tower, compile_layers, patch_features
from flashsd_ray.training.target.grounding import GroundingLoss, word_scores
from flashsd_ray.training.target.optimizer import Optimizers
from flashsd_ray.training.target.progress import (
    RunClock,
    load_checkpoint,
    log_step,
    save_checkpoint,
)
from flashsd_ray.training.target.stream import ClipStream, stream_batches
from flashsd_ray.training.target.tokenizer import stage_tokenizer
from flashsd_ray.training.target.worlds import DEMO, World

BATCH_SIZE = 64
LEARNING_RATE = 2e-3


def train_align(
    out_dir: Path,
    minutes: float,
    seed: int,
    *,
    is_resumed: bool,
    world: World = DEMO,
    steps: int | None = None,  # None: until the minutes are over
) -> Path:
    """`align.pt` in `out_dir` holds a model whose patches are near their words; returns its path."""
    torch.manual_seed(seed)
    path = out_dir / "align.pt"
    tokenizer = stage_tokenizer(out_dir, world)
    model = build_with_tower(tokenizer, out_dir / "vision.pt", world)
    compile_layers(model)
    grounding = GroundingLoss(tokenizer, world)
    learned = [*model.model.multi_modal_projector.named_parameters()]
    learned.append(("embeddings", model.get_input_embeddings().weight))
    optimizers = Optimizers(learned, LEARNING_RATE)
    clock = RunClock(minutes, steps=steps)
    if is_resumed and path.exists():
        state = load_checkpoint(path)
        model.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
        clock = RunClock(minutes, state["spent_s"], steps=steps, step=state["step"])
    first_seed = seed * 10**9 + 10**8
    stream = ClipStream(split="train", first_seed=first_seed, batch_size=BATCH_SIZE, frame_counts=(1,), world=world)

    def save() -> None:
        state = {"model": model.state_dict(), "optimizers": optimizers.state_dict()}
        extra = {"step": clock.step, "spent_s": clock.spent_s, "seed": seed, "is_done": clock.is_done}
        save_checkpoint(path, state | extra)

    for batch in stream_batches(stream, first_batch=clock.step):
        projected = model.model.multi_modal_projector(patch_features(model, batch.pixels))
        loss, hits = grounding(word_scores(model, projected), batch.objects, batch.scene)
        torch.autograd.backward(loss)
        optimizers.step(clock.progress)
        clock.step += 1
        if clock.is_log_due():
            log_step("align", clock.step, clock, {"loss": loss.item(), "named": hits.item()})
        if clock.is_save_due():
            save()
        if clock.is_over:
            break
    save()
    return path
