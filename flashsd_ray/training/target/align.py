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

BATCH_SIZE = 64
LEARNING_RATE = 2e-3


def train_align(out_dir: Path, minutes: float, seed: int, *, is_resumed: bool) -> Path:
    """`align.pt` in `out_dir` holds a model whose patches are near their words; returns its path."""
    torch.manual_seed(seed)
    path = out_dir / "align.pt"
    tokenizer = stage_tokenizer(out_dir)
    model = build_with_tower(tokenizer, out_dir / "vision.pt")
    compile_layers(model)
    grounding = GroundingLoss(tokenizer)
    learned = [*model.model.multi_modal_projector.named_parameters()]
    learned.append(("embeddings", model.get_input_embeddings().weight))
    optimizers = Optimizers(learned, LEARNING_RATE)
    step, spent_s = 0, 0.0
    if is_resumed and path.exists():
        state = load_checkpoint(path)
        model.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
        step, spent_s = state["step"], state["spent_s"]
    clock = RunClock(minutes, spent_s)
    stream = ClipStream(split="train", first_seed=seed * 10**9 + 10**8, batch_size=BATCH_SIZE, frame_counts=(1,))

    def save() -> None:
        state = {"model": model.state_dict(), "optimizers": optimizers.state_dict()}
        save_checkpoint(path, state | {"step": step, "spent_s": clock.spent_s, "seed": seed})

    for batch in stream_batches(stream, first_batch=step):
        projected = model.model.multi_modal_projector(patch_features(model, batch.pixels))
        loss, hits = grounding(word_scores(model, projected), batch.objects, batch.scene)
        torch.autograd.backward(loss)
        optimizers.step(clock.progress)
        step += 1
        if clock.is_log_due():
            log_step("align", step, clock, {"loss": loss.item(), "named": hits.item()})
        if clock.is_save_due():
            save()
        if clock.is_over:
            break
    save()
    return path
