"""The last stages: the text model answers questions about clips; the vision tower stays frozen."""

import math
from pathlib import Path

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from flashsd_ray.training.target.frozen import build_with_tower, compile_layers, patch_features
from flashsd_ray.training.target.grounding import GroundingLoss, word_scores
from flashsd_ray.training.target.optimizer import Optimizers
from flashsd_ray.training.target.package import build_model, save_target
from flashsd_ray.training.target.packing import PackedText, Packer, attention_bias
from flashsd_ray.training.target.progress import (
    RunClock,
    is_stopped,
    load_checkpoint,
    log_step,
    save_checkpoint,
)
from flashsd_ray.training.target.stream import ClipBatch, ClipStream, stream_batches
from flashsd_ray.training.target.tokenizer import stage_tokenizer
from flashsd_ray.training.target.worlds import DEMO, World

BATCH_SIZE = 16
LEARNING_RATE = 2e-3
EARLY_SHARE = 0.12  # of the time, on short answers only
FOUR_FRAMES_SHARE = 0.6  # of the time, on four frames only; then four to eight
SHORT_SCHEDULE = 0.3  # of the schedule that short answers see
GROUNDING_WEIGHT = 0.3
SNAPSHOT_CLIPS = 12


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
    """One run of a stage of answers: model, optimizer, clock and files."""

    def __init__(
        self,
        stage: str,  # "short" or "captions"
        out_dir: Path,
        minutes: float,
        seed: int,
        *,
        is_resumed: bool,
        world: World = DEMO,
        steps: int | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.stage = stage
        self.world = world
        self.path = out_dir / f"{stage}.pt"
        self.package_dir = out_dir / "target"
        self.seed = seed
        self.tokenizer: PreTrainedTokenizerFast = stage_tokenizer(out_dir, world)
        self.model = build_with_tower(self.tokenizer, out_dir / "vision.pt", world)
        is_resumed = is_resumed and self.path.exists()
        before = out_dir / "short.pt"
        self._follows_short = stage == "captions" and before.exists()
        state = load_checkpoint(self.path if is_resumed else before if self._follows_short else out_dir / "align.pt")
        self.model.load_state_dict(state["model"])
        compile_layers(self.model)
        self.optimizers = Optimizers(self.model.named_parameters(), LEARNING_RATE)
        self.clock = RunClock(minutes, steps=steps)
        if is_resumed:
            self.optimizers.load_state_dict(state["optimizers"])
            self.clock = RunClock(minutes, state["spent_s"], steps=steps, step=state["step"])
        self.grounding = GroundingLoss(self.tokenizer, world)
        self.packer = Packer(self.tokenizer, world)

    def train(self) -> None:
        """The stage has run its course or was stopped, and its last checkpoint and package are written."""
        totals: dict[str, float] = {}
        while not self.clock.is_over:
            batches = stream_batches(self._stream(), first_batch=self.clock.step)
            frame_counts = self._frame_counts()
            for batch in batches:
                totals = self._learn(batch, totals)
                if self.clock.is_save_due():
                    self.save()
                if self.clock.is_validation_due():
                    self.validate()
                if self.clock.is_over or self._frame_counts() != frame_counts:
                    break
        self.save()
        if not is_stopped():
            self.validate()

    def save(self) -> None:
        """The checkpoint and the package of this moment are written."""
        state = {"model": self.model.state_dict(), "optimizers": self.optimizers.state_dict()}
        extra = {"step": self.clock.step, "spent_s": self.clock.spent_s, "seed": self.seed}
        save_checkpoint(self.path, state | extra | {"is_done": self.clock.is_done})
        save_target(self.model, self.tokenizer, self.package_dir)

    def validate(self) -> None:
        """The figures of held-out clips are in the log."""
        copy = build_model(self.tokenizer, max_new_tokens=self.world.max_new_tokens)
        copy.load_state_dict(self.model.state_dict())
        figures = self.world.validate(copy, self.tokenizer, SNAPSHOT_CLIPS)
        log_step(f"{self.stage} heldout", self.clock.step, self.clock, figures)

    def _learn(self, batch: ClipBatch, totals: dict[str, float]) -> dict[str, float]:
        text = self.packer.pack(batch.scenes, batch.pixels.shape[1], is_early=self._is_early())
        loss, parts = caption_loss(self.model, self.grounding, batch, text)
        torch.autograd.backward(loss)
        norm = self.optimizers.step(self._schedule_progress())
        self.clock.step += 1
        if not math.isfinite(norm):
            message = f"gradient must be finite, got {norm} at step {self.clock.step}"
            raise FloatingPointError(message)
        shown = {name: value.item() for name, value in parts.items()}
        totals = {name: 0.9 * totals.get(name, value) + 0.1 * value for name, value in shown.items()}
        if self.clock.is_log_due():
            log_step(self.stage, self.clock.step, self.clock, totals | {"gradient": norm})
        return totals

    def _is_early(self) -> bool:
        return self.stage == "short" or (not self._follows_short and self.clock.progress < EARLY_SHARE)

    def _schedule_progress(self) -> float:
        """Short answers are the beginning: their learning rate stays high."""
        return SHORT_SCHEDULE * self.clock.progress if self.stage == "short" else self.clock.progress

    def _frame_counts(self) -> tuple[int, ...]:
        return (4,) if self.stage == "short" or self.clock.progress < FOUR_FRAMES_SHARE else (4, 6, 8)

    def _stream(self) -> ClipStream:
        return ClipStream(
            split="train",
            first_seed=self.seed * 10**9 + (3 if self.stage == "short" else 2) * 10**8,
            batch_size=BATCH_SIZE,
            frame_counts=self._frame_counts(),
            world=self.world,
        )


def train_answers(
    stage: str,  # short: a target that answers briefly; captions: one that also describes in detail
    out_dir: Path,
    minutes: float,
    seed: int,
    *,
    is_resumed: bool,
    world: World = DEMO,
    steps: int | None = None,  # None: until the minutes are over
) -> Path:
    """The checkpoint of the stage and the folder `target` in `out_dir` hold the trained target."""
    run = CaptionRun(stage, out_dir, minutes, seed, is_resumed=is_resumed, world=world, steps=steps)
    run.train()
    return run.path
