"""The training loop: the target is frozen and has read already, so a step is one forward of the drafter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.training.drafter.batches import Lessons
from flashsd_ray.training.drafter.evaluate import Quality, evaluate
from flashsd_ray.training.drafter.events import Judged, Learnt, Listener
from flashsd_ray.training.drafter.losses import LossParts, LossWeights, drafting_loss
from flashsd_ray.training.drafter.peers import Peers
from flashsd_ray.training.drafter.pool import ReadingPool
from flashsd_ray.training.drafter.state import load_state, save_state
from flashsd_ray.training.optimizer import Optimizers, Rates

MATRIX_RATE = 10.0 / 3.0  # Muon's, for one of AdamW's


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How long and how fast."""

    minutes: float | None = None  # of training, evaluations not counted; None: only steps count
    steps: int | None = None
    num_readings: int = 8  # N, answers in one step, of all processes together
    num_anchors: int = 16  # A, of each
    num_fresh: int = 2  # answers read anew for each step where not all readings fit into memory
    learning_rate: float = 6e-4
    early: float = 0.1  # share of training with KL divergence
    clip_norm: float = 1.0
    seed: int = 0
    evaluate_every_s: float = 60.0
    report_every: int = 10  # steps
    weights: LossWeights = field(default_factory=LossWeights)
    is_autocast: bool = True


class Trainer:
    """Trains one network on readings; what it needs to go on later is kept in its folder."""

    def __init__(
        self,
        network: DrafterNetwork,
        pool: ReadingPool,
        heldout: ReadingPool,
        config: TrainingConfig,
        folder: Path | None = None,  # None: nothing is kept
        *,
        identity: Mapping[str, Any] | None = None,  # what must be the same when a training goes on
        listener: Listener = lambda event: None,
        peers: Peers | None = None,
    ) -> None:
        self.network = network
        self.config = config
        self.step = 0
        self.spent_s = 0.0
        self.peers = peers or Peers()
        self._pool = pool
        self._lessons = Lessons(pool, network, config.seed, self.peers.rank)
        self._heldout = Lessons(heldout, network)
        self._listener = listener
        self._folder = folder
        self._identity = dict(identity or {})
        matrix_rate = MATRIX_RATE * config.learning_rate
        rates = Rates(matrices=matrix_rate, others=config.learning_rate, warm_up=0.04, last=0.05)
        self._optimizers = Optimizers(network.named_parameters(), rates, _inner_matrices(network).__contains__)
        self._resume()
        self._forward: Callable[..., Any] = self.peers.wrapped(network)

    @property
    def num_answers(self) -> int:
        """Answers that this process learns from at a time."""
        return len(self._pool.readings)

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        by_time = self.spent_s / (60.0 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def run(self) -> Quality:
        """The network is trained; returns its quality on the held-out readings.

        Raises:
            InvalidRequestError: nothing can be learnt from.
        """
        self._pool.fill(self.step * self._num_fresh)
        if not self._pool.readings:
            raise InvalidRequestError("there is no answer to learn from: all are shorter than two tokens, or broken")
        evaluated_s = self.spent_s
        while self.progress < 1.0:
            began_s = monotonic()
            parts = self.learn()
            self.spent_s += self.peers.largest(monotonic() - began_s, self.network.view.device)
            if self.step % self.config.report_every == 0 or self.progress >= 1.0:
                self._report(parts)
            if self.progress < 1.0 and self.spent_s - evaluated_s >= self.config.evaluate_every_s:
                evaluated_s = self.spent_s
                self.evaluate()
                self.save()
            self._pool.refresh(self._num_fresh)
        return self.evaluate()

    def evaluate(self) -> Quality:
        """The present quality on the held-out readings, which only the first process has."""
        self.network.eval()
        quality = evaluate(self.network, self._heldout, is_autocast=self.config.is_autocast)
        if self.peers.is_first:
            self._listener(
                Judged(step=self.step, progress=self.progress, spent_s=self.spent_s, quality=quality.to_json())
            )
        return quality

    def learn(self) -> LossParts:
        """One step is made."""
        config, network = self.config, self.network.train()
        with torch.autocast(network.view.device.type, torch.bfloat16, enabled=config.is_autocast):
            batch = self._lessons.draw(self.step, -(-config.num_readings // self.peers.size), config.num_anchors)
            answers = self._forward(batch.lesson)
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
        self._optimizers.step(self.progress, config.clip_norm)
        self.step += 1
        return replace(parts, total=parts.total.detach())

    def save(self) -> None:
        """A later run can go on from here."""
        if self._folder is None or not self.peers.is_first:
            return
        state = {
            "network": self.network.state_dict(),
            "optimizers": self._optimizers.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
        }
        save_state(self._folder, state, self._identity)

    @property
    def _num_fresh(self) -> int:
        return -(-self.config.num_fresh // self.peers.size)

    def _report(self, parts: LossParts) -> None:
        self._listener(
            Learnt(
                step=self.step,
                progress=self.progress,
                spent_s=self.spent_s,
                loss=float(parts.total),
                hard=parts.hard,
                overlap=parts.overlap,
                slots=tuple(round(value, 4) for value in parts.slots.tolist()),
                learning_rate=self.config.learning_rate * self._optimizers.rates.share(self.progress),
            )
        )

    def _resume(self) -> None:
        state = load_state(self._folder, self._identity) if self._folder is not None else None
        if state is not None:
            self.network.load_state_dict(state["network"])
            self._optimizers.load_state_dict(state["optimizers"])
            self.step, self.spent_s = state["step"], state["spent_s"]


def _inner_matrices(network: DrafterNetwork) -> set[str]:
    """Names of the weights that map hidden rows to hidden rows; tables of tokens, queries and odds are none of them."""
    linears = (name for name, module in network.named_modules() if isinstance(module, nn.Linear))
    return {f"{name}.weight" for name in linears if not name.startswith("markov.")}
