"""The last stages: the text model answers questions about clips; the vision tower stays frozen."""

import math
from pathlib import Path

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from flashsd_ray.training.optimizer import Optimizers
from flashsd_ray.training.target.frozen import build_with_tower, compile_layers, patch_features
from flashsd_ray.training.target.grounding import GroundingLoss, word_scores
from flashsd_ray.training.target.package import build_model, save_target
from flashsd_ray.training.target.packing import PackedText, Packer, attention_bias
from flashsd_ray.training.target.progress import StageRun, is_stopped, load_checkpoint
from flashsd_ray.training.target.settings import BEFORE, Stage, is_inner, rates
from flashsd_ray.training.target.stream import ClipBatch, ClipStream, stream_batches
from flashsd_ray.training.target.tokenizer import stage_tokenizer
from flashsd_ray.training.town.evaluate import VALIDATION_SEED, evaluate_target

BATCH_SIZE = 16
LEARNING_RATE = 2e-3
FOUR_FRAMES_SHARE = 0.6  # of the steps, on four frames only; then four to eight
SHORT_SCHEDULE = 0.3  # of the schedule that short answers see
GROUNDING_WEIGHT = 0.3
VALIDATION_CLIPS = 12
REPORTED = ("object_f1", "motion", "position", "count", "color", "questions", "style_json", "style_short")


def caption_loss(
    model: LlavaForConditionalGeneration,
    grounding: GroundingLoss,
    batch: ClipBatch,
    text: PackedText,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of one batch and its parts."""
    features = patch_features(model, batch.pixels)
    projected = model.model.multi_modal_projector(features)
    ground_loss, named = grounding(word_scores(model, projected), batch.objects, batch.scene)
    embedded = model.get_input_embeddings()(text.input_ids)
    is_visual = text.input_ids == model.config.image_token_index
    embedded = embedded.masked_scatter(is_visual[..., None], projected)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=attention_bias(text.segments, embedded.dtype),
        position_ids=text.positions,
        use_cache=False,
    ).last_hidden_state
    is_answer = text.targets >= 0
    logits = model.lm_head(hidden[is_answer]).float()
    answer_loss = nn.functional.cross_entropy(logits, text.targets[is_answer])
    parts = {"answers": answer_loss, "ground": ground_loss, "named": named}
    return answer_loss + GROUNDING_WEIGHT * ground_loss, parts


class CaptionRun:
    """One run of a stage of answers: `short`, whose target answers briefly, or `captions`, which also describes in detail."""

    def __init__(self, stage: Stage) -> None:
        torch.manual_seed(stage.seed)
        self.stage = stage
        self.is_short = stage.name == "short"
        self.tokenizer: PreTrainedTokenizerFast = stage_tokenizer(stage.out_dir)
        self.model = build_with_tower(self.tokenizer, stage.before("vision"))
        if not stage.goes_on:
            self.model.load_state_dict(load_checkpoint(stage.before(BEFORE[stage.name]))["model"])
        compile_layers(self.model)
        self.optimizers = Optimizers(self.model.named_parameters(), rates(LEARNING_RATE), is_inner)
        self.run = StageRun(stage, self.model, self.optimizers)
        self.grounding = GroundingLoss(self.tokenizer)
        self.packer = Packer(self.tokenizer)

    def train(self) -> None:
        """The stage has run its course or was stopped, and its last checkpoint and package are written."""
        totals: dict[str, float] = {}
        clock = self.run.clock
        while not clock.is_over:
            frame_counts = self._frame_counts()
            for batch in stream_batches(self._stream(), first_batch=clock.step):
                totals = self._learn(batch, totals)
                if self.run.is_save_due:
                    self.save()
                if self.run.is_validation_due:
                    self.validate()
                if clock.is_over or self._frame_counts() != frame_counts:
                    break
        self.save()
        if not is_stopped():
            self.validate()

    def save(self) -> None:
        """The checkpoint and the package of this moment are written."""
        self.run.save()
        save_target(self.model, self.tokenizer, self.stage.out_dir / "target")

    def validate(self) -> None:
        """The figures of held-out clips are reported."""
        copy = build_model(self.tokenizer)
        copy.load_state_dict(self.model.state_dict())
        tally = evaluate_target(copy, self.tokenizer, clip_count=VALIDATION_CLIPS, first_seed=VALIDATION_SEED)
        figures = tally.figures()
        self.run.report({name: figures[name] for name in REPORTED if name in figures}, is_heldout=True)

    def _learn(self, batch: ClipBatch, totals: dict[str, float]) -> dict[str, float]:
        text = self.packer.pack(batch.scenes, batch.pixels.shape[1], is_early=self.is_short)
        loss, parts = caption_loss(self.model, self.grounding, batch, text)
        torch.autograd.backward(loss)
        norm = self.optimizers.step(self._schedule_progress())
        self.run.clock.step += 1
        if not math.isfinite(norm):
            message = f"gradient must be finite, got {norm} at step {self.run.clock.step}"
            raise FloatingPointError(message)
        shown = {name: value.item() for name, value in parts.items()}
        totals = {name: 0.9 * totals.get(name, value) + 0.1 * value for name, value in shown.items()}
        self.run.report(totals | {"gradient": norm})
        return totals

    def _schedule_progress(self) -> float:
        """Short answers are the beginning: their learning rate stays high."""
        progress = self.run.clock.progress
        return SHORT_SCHEDULE * progress if self.is_short else progress

    def _frame_counts(self) -> tuple[int, ...]:
        return (4,) if self.is_short or self.run.clock.progress < FOUR_FRAMES_SHARE else (4, 6, 8)

    def _stream(self) -> ClipStream:
        return ClipStream(
            split="train",
            first_seed=self.stage.seed * 10**9 + (3 if self.is_short else 2) * 10**8,
            batch_size=BATCH_SIZE,
            frame_counts=self._frame_counts(),
        )


def train_answers(stage: Stage) -> Path:
    """The stage's checkpoint and the folder `target` beside it hold the trained target; returns the checkpoint's path.

    Raises:
        ConfigError: an earlier stage has left no checkpoint.
    """
    CaptionRun(stage).train()
    return stage.path
