"""Stage 2: the projector and the word embeddings meet, with no text model in between."""

from pathlib import Path

import torch

from flashsd_ray.training.optimizer import Optimizers
from flashsd_ray.training.target.frozen import build_with_tower, compile_layers, patch_features
from flashsd_ray.training.target.grounding import GroundingLoss, word_scores
from flashsd_ray.training.target.progress import StageRun
from flashsd_ray.training.target.settings import Stage, is_inner, rates
from flashsd_ray.training.target.stream import ClipStream, stream_batches
from flashsd_ray.training.target.tokenizer import stage_tokenizer

BATCH_SIZE = 64
LEARNING_RATE = 2e-3


def train_align(stage: Stage) -> Path:
    """The stage's checkpoint holds a model whose patches are near their words; returns its path.

    Raises:
        ConfigError: there is no trained tower.
    """
    torch.manual_seed(stage.seed)
    tokenizer = stage_tokenizer(stage.out_dir)
    model = build_with_tower(tokenizer, stage.before("vision"))
    compile_layers(model)
    grounding = GroundingLoss(tokenizer)
    learned = [*model.model.multi_modal_projector.named_parameters()]
    learned.append(("embeddings", model.get_input_embeddings().weight))
    optimizers = Optimizers(learned, rates(LEARNING_RATE), is_inner)
    run = StageRun(stage, model, optimizers)
    first_seed = stage.seed * 10**9 + 10**8
    stream = ClipStream(split="train", first_seed=first_seed, batch_size=BATCH_SIZE, frame_counts=(1,))
    for batch in stream_batches(stream, first_batch=run.clock.step):
        projected = model.model.multi_modal_projector(patch_features(model, batch.pixels))
        loss, hits = grounding(word_scores(model, projected), batch.objects, batch.scene)
        torch.autograd.backward(loss)
        optimizers.step(run.clock.progress)
        run.clock.step += 1
        run.report({"loss": loss.item(), "named": hits.item()})
        if run.is_save_due:
            run.save()
        if run.clock.is_over:
            break
    run.save()
    return stage.path
