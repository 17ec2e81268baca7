"""A whole training in this process: questions, answers, readings, steps, and the checkpoint with its papers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from flashsd_ray.engine.local import view_of
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.build import build_network
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.training.drafter.answer_store import AnswerStore
from flashsd_ray.training.drafter.answers import Answer, Answers, Asker
from flashsd_ray.training.drafter.broken import Broken
from flashsd_ray.training.drafter.data import Data, open_data
from flashsd_ray.training.drafter.events import Listener
from flashsd_ray.training.drafter.job import Job
from flashsd_ray.training.drafter.papers import write_papers
from flashsd_ray.training.drafter.peers import Peers
from flashsd_ray.training.drafter.pool import ReadingPool
from flashsd_ray.training.drafter.questions import Question
from flashsd_ray.training.drafter.reading_files import ReadingFiles
from flashsd_ray.training.drafter.readings import Reader, Reading
from flashsd_ray.training.drafter.series import Changed, Series, share
from flashsd_ray.training.drafter.state import forget_state
from flashsd_ray.training.drafter.trainer import Trainer


def data_of(job: Job) -> Data:
    """The job's questions; the target answers those that are held out, whatever the data says.

    Raises:
        ConfigError: they cannot be read, or a line is wrong.
    """
    data = open_data(
        job.data,
        prompts=job.prompts,
        num_heldout=job.num_heldout,
        heldout_source=job.heldout_data,
        sampled_share=job.sampled_share,
    )
    return Data(data.train, Changed(data.heldout, _unanswered))


def _unanswered(question: Question) -> Question:
    return replace(question, answer=None)


def train(job: Job, data: Data, listener: Listener, peers: Peers | None = None) -> None:
    """The drafter is trained, and its folder holds everything about it.

    With peers every process calls this with the same job and data; each learns from its own part of the data, and the
    first one judges and writes.

    Effects:
        Sets torch's number of threads where the job says one.

    Raises:
        FlashSDError: the target cannot be loaded, too much of the data is broken, or nothing is left to learn from.
    """
    peers = peers or Peers()
    if job.config.model.threads:
        torch.set_num_threads(job.config.model.threads)
    model = job.config.model
    target = load_target(model.name, dtype=model.dtype, device=model.device)
    writer = f"{peers.rank}-of-{peers.size}" if peers.size > 1 else ""
    broken = Broken(job.max_errors, listener)
    with closing(AnswerStore(job.store, target.fingerprint, writer)) as store:
        asker = Asker(
            target=target,
            store=store,
            config=job.config,
            max_new_tokens=job.max_new_tokens,
            broken=broken,
            listener=listener,
        )
        answers = asker.answers(share(data.train, peers.rank, peers.size))
        heldout = asker.answers(data.heldout if peers.is_first else ())
        if not job.only_answers:
            _train(_Learning(job, target, answers, heldout, broken, listener, peers))


@dataclass(frozen=True, slots=True, eq=False)
class _Learning:
    """What is at hand once everything is answered."""

    job: Job
    target: PretrainedTarget
    answers: Answers
    heldout: Answers
    broken: Broken
    listener: Listener
    peers: Peers


def _train(learning: _Learning) -> None:
    job, target = learning.job, learning.target
    view = view_of(target)
    config = job.design.config(view)
    network = build_network(job.design.kind, view, seed=job.training.seed, config=config)
    read = _reader(learning, config)
    heldout = _pool(learning, learning.heldout, read)
    if learning.peers.is_first:
        heldout.fill()
    trainer = Trainer(
        network,
        _pool(learning, learning.answers, read),
        heldout,
        job.training_of(config),
        job.out,
        identity=job.identity(target.fingerprint),
        listener=learning.listener,
        peers=learning.peers,
    )
    quality = trainer.run()
    num_left_out = learning.peers.total(len(learning.broken), view.device)
    if learning.peers.is_first:
        write_papers(job, target, trainer, quality, learning.heldout, num_left_out=int(num_left_out))
        forget_state(job.out)


def _pool(learning: _Learning, answers: Series[Answer], read: Callable[[Answer], Reading | None]) -> ReadingPool:
    return ReadingPool(answers, read, learning.job.memory_bytes, learning.listener)


def _reader(learning: _Learning, config: DrafterConfig) -> Callable[[Answer], Reading | None]:
    """Reads an answer, from disk where it was kept; None for one that cannot be read."""
    job, target = learning.job, learning.target
    has_embeddings = config.source == "vision"
    reader = Reader(target, config.tap_layers, job.config, keeps_embeddings=has_embeddings)
    files = None
    if job.keeps_readings:
        files = ReadingFiles(job.store, target.fingerprint, config.tap_layers, has_embeddings=has_embeddings)

    def read(answer: Answer) -> Reading | None:
        kept = files.get(answer.key) if files else None
        if kept is not None and kept.token_ids[kept.num_prompt_tokens :] == answer.token_ids:
            return kept
        try:
            reading = reader.read(answer)
        except InvalidRequestError as error:
            learning.broken.leave_out(answer.question, error)
            return None
        if files:
            files.put(answer.key, reading)
        return reading

    return read
