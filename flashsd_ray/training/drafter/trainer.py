"""The training loop: the target is frozen and read already, so a step is one forward of the drafter."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import torch
import torch.nn.functional as F

from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.training.drafter.batches import Lessons
from flashsd_ray.training.drafter.evaluate import Quality, evaluate
from flashsd_ray.training.drafter.losses import LossParts, LossWeights, drafting_loss
from flashsd_ray.training.drafter.readings import Reading

STATE_FILE = "training.pt"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How long and how fast."""

    minutes: float | None = None  # of training, evaluations not counted; None: only steps count
    steps: int | None = None
    num_readings: int = 8  # N, answers in one step
    num_anchors: int = 16  # A, of each
    learning_rate: float = 6e-4
    warm_up: float = 0.04  # share of training
    last_rate: float = 0.05  # of the learning rate, at the end of the cosine
    early: float = 0.1  # share of training with KL divergence
    clip_norm: float = 1.0
    seed: int = 0
    evaluate_every_s: float = 60.0
    weights: LossWeights = field(default_factory=LossWeights)
    is_autocast: bool = True


class Trainer:
    """Trains one network on readings; what it needs to go on later is kept in its folder."""

    def __init__(
        self,
        network: DrafterNetwork,
        readings: Sequence[Reading],
        heldout: Sequence[Reading],
        config: TrainingConfig,
        folder: Path | None = None,  # None: nothing is kept
    ) -> None:
        self.network = network
        self.config = config
        self.step = 0
        self.spent_s = 0.0
        self._lessons = Lessons(readings, network, config.seed)
        self._heldout = Lessons(heldout, network, config.seed)
        self._state_path = None if folder is None else folder / STATE_FILE
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        if self._state_path is not None and self._state_path.exists():
            self._resume(self._state_path)

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        by_time = self.spent_s / (60.0 * self.config.minutes) if self.config.minutes else 0.0
        return max(by_steps, by_time)

    def run(self) -> Quality:
        """The network is trained; returns its quality on the held-out readings."""
        evaluated_s = self.spent_s
        while self.progress < 1.0:
            began_s = monotonic()
            parts = self._learn()
            self.spent_s += monotonic() - began_s
            if self.spent_s - evaluated_s >= self.config.evaluate_every_s:
                evaluated_s = self.spent_s
                self._report(self.evaluate(), parts)
                self._save()
        if self._state_path is not None:
            self._state_path.unlink(missing_ok=True)
        return self.evaluate()

    def evaluate(self) -> Quality:
        """The present quality on the held-out readings."""
        self.network.eval()
        return evaluate(self.network, self._heldout, is_autocast=self.config.is_autocast)

    def _learn(self) -> LossParts:
        config, network = self.config, self.network.train()
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * self._rate(self.progress)
        with torch.autocast(network.view.device.type, torch.bfloat16, enabled=config.is_autocast):
            batch = self._lessons.draw(config.num_readings, config.num_anchors)
            answers = network(batch.lesson)
            with torch.no_grad():
                target_logits = F.linear(batch.finals, network.view.lm_head)
        parts = drafting_loss(
            answers,
            target_logits,
            batch.finals,
            batch.token_ids,
            batch.is_real,
            config.weights,
            is_early=self.progress < config.early,
        )
        torch.autograd.backward(parts.total)
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return replace(parts, total=parts.total.detach())

    def _rate(self, progress: float) -> float:
        """Share of the learning rate: a linear rise, then a cosine."""
        if progress < self.config.warm_up:
            return max(progress / self.config.warm_up, 0.01)
        done = min(1.0, (progress - self.config.warm_up) / (1.0 - self.config.warm_up))
        return self.config.last_rate + (1.0 - self.config.last_rate) * 0.5 * (1.0 + math.cos(math.pi * done))

    def _report(self, quality: Quality, parts: LossParts) -> None:
        logger.info(
            "step %d, %.0f s (%.0f %%), loss %.3f, overlap %.3f, greedy tau %.2f %s, sampled tau %.2f",
            self.step,
            self.spent_s,
            100.0 * self.progress,
            float(parts.total),
            parts.overlap,
            quality.greedy_tau,
            " ".join(f"{value:.2f}" for value in quality.greedy_slots),
            quality.sampled_tau,
        )

    def _save(self) -> None:
        if self._state_path is None:
            return
        self._state_path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._lessons.generator.get_state(),
            "step": self.step,
            "spent_s": self.spent_s,
        }
        partial = self._state_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state_path)

    def _resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._lessons.generator.set_state(state["generator"])
        self.step, self.spent_s = state["step"], state["spent_s"]
        logger.info("resumed at step %d", self.step)
