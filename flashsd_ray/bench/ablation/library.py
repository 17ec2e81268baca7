"""Answers and readings that all rows learn from: the target answers once and reads once, whatever a row taps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from flashsd_ray.config import Config
from flashsd_ray.errors import ConfigError
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter.answer_store import AnswerStore
from flashsd_ray.training.drafter.answers import Answers, Asker
from flashsd_ray.training.drafter.broken import Broken
from flashsd_ray.training.drafter.data import open_data
from flashsd_ray.training.drafter.events import Event, Listener, Read
from flashsd_ray.training.drafter.pool import ReadingPool
from flashsd_ray.training.drafter.questions import TOWN, Question, TownQuestions
from flashsd_ray.training.drafter.readings import Reader
from flashsd_ray.training.drafter.series import Series

MAX_ERRORS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is learnt from."""

    data: str  # as ``flashsd train drafter --data`` takes it
    num_heldout: int
    max_new_tokens: int
    memory_bytes: int
    config: Config


class Library:
    """The readings of one target with the taps of all rows; each row gets its part of them, which costs no memory."""

    def __init__(
        self,
        target: PretrainedTarget,
        source: Source,
        folder: Path,  # of the answers
        configs: Sequence[DrafterConfig],  # of all rows that will ask
        listener: Listener,
    ) -> None:
        self._target = target
        self._source = source
        self._folder = folder
        self._listener = listener
        self._layers = tuple(sorted({layer for config in configs for layer in config.tap_layers}))
        self._has_embeddings = any(config.source == "vision" for config in configs)
        self._pools: dict[str, ReadingPool] = {}

    def readings(self, config: DrafterConfig, *, tells_answers: bool = False) -> ReadingPool:
        """What a drafter of these sizes learns from.

        Raises:
            ConfigError: the data cannot be read, or does not say what is true.
        """
        return self._part("given" if tells_answers else "own", config)

    def heldout(self, config: DrafterConfig) -> ReadingPool:
        """What it is judged by while it learns."""
        return self._part("heldout", config)

    def _part(self, name: str, config: DrafterConfig) -> ReadingPool:
        if name not in self._pools:
            self._pools[name] = self._read(name)
        width = self._target.decoder.hidden_size
        places = [self._layers.index(layer) for layer in config.tap_layers]
        return ReadingPool.of(
            replace(
                reading,
                taps=_columns(reading.taps, places, width),
                embeddings=reading.embeddings if config.source == "vision" else None,
            )
            for reading in self._pools[name].readings
        )

    def _read(self, name: str) -> ReadingPool:
        reader = Reader(self._target, self._layers, self._source.config, keeps_embeddings=self._has_embeddings)
        with closing(AnswerStore(self._folder, self._target.fingerprint)) as store:
            answers, num_bytes = self._answers(name, store), 0

            def counted(event: Event) -> None:
                nonlocal num_bytes
                num_bytes = event.num_bytes if isinstance(event, Read) else num_bytes

            pool = ReadingPool(answers, reader.read, self._source.memory_bytes, counted)
            pool.fill()
            self._listener(Read(done=len(pool.readings), total=len(answers), num_bytes=num_bytes))
        return pool

    def _answers(self, name: str, store: AnswerStore) -> Answers:
        asker = Asker(
            target=self._target,
            store=store,
            config=self._source.config,
            max_new_tokens=self._source.max_new_tokens,
            broken=Broken(MAX_ERRORS, self._listener),
            listener=self._listener,
        )
        data = open_data(self._source.data, num_heldout=self._source.num_heldout)
        if name == "heldout":
            return asker.answers(data.heldout)
        return asker.answers(_told(data.train, self._source.data) if name == "given" else data.train)


def knows_what_is_true(source: str) -> bool:
    """Whether the data has true answers beside those of a target."""
    return source.startswith(TOWN)


def _told(questions: Series[Question], source: str) -> Series[Question]:
    """The same questions with the answers that are true, where the town knows them."""
    if not isinstance(questions, TownQuestions):
        raise ConfigError(f"{source} does not say what is true, so no row can be trained on that")
    return questions.telling_answers()


def _columns(taps: Tensor, places: Sequence[int], width: int) -> Tensor:  # [n, M * D] -> [n, m * D]
    """The taps of some layers; a view where these are neighbours."""
    first, count = places[0], len(places)
    if list(places) == list(range(first, first + count)):
        return taps[:, first * width : (first + count) * width]
    return torch.cat([taps[:, place * width : (place + 1) * width] for place in places], dim=1)
