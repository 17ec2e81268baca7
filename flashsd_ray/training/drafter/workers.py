"""Training on several Ray workers: Ray Train starts them, joins them to a process group and minds their failures."""

from __future__ import annotations

import logging
import math
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError

from flashsd_ray.errors import ConfigError, FlashSDError, UnavailableError
from flashsd_ray.ray_environment import prepare_ray_environment
from flashsd_ray.training.drafter.events import Journal, LeftOut, Listener, journal_file, read_event
from flashsd_ray.training.drafter.job import Job
from flashsd_ray.training.drafter.peers import Peers
from flashsd_ray.training.drafter.run import data_of, train

RAY_FOLDER = "ray"  # in the job's folder: what Ray itself keeps
JOIN_TIMEOUT_S = 24 * 3600  # the others wait where one has more to ask, or judges
FOLLOW_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How many there are, and what each may use."""

    count: int
    cpus: float = 1.0
    gpus: float = 0.0
    restarts: int = 0  # of all workers together, after one was lost; training goes on from its last state
    address: str | None = None  # of a cluster; None: the Ray that runs here, or one of our own


def train_on_workers(job: Job, workers: Workers, listener: Listener) -> None:
    """The same as ``train``, done by several processes; all must see the job's folder and its data.

    Raises:
        FlashSDError: what one of them raised.
        ConfigError: Ray cannot be reached or started.
        UnavailableError: one of them was lost.
    """
    job = job.with_absolute_paths()  # a worker may begin in another directory
    journals = [job.out / journal_file(rank) for rank in range(workers.count)]
    with _ray(workers), _followed(journals, listener):
        try:
            _trainer(job, workers).fit()
        except TrainingFailedError as error:
            raise _cause(error) from error
    shutil.rmtree(job.out / RAY_FOLDER, ignore_errors=True)


def _trainer(job: Job, workers: Workers) -> TorchTrainer:
    return TorchTrainer(
        _work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(timeout_s=JOIN_TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})},
        ),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=str(job.out.resolve()),
            failure_config=FailureConfig(max_failures=workers.restarts),
        ),
    )


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    job: Job = config["job"]
    device = get_device()
    if device.type == "cuda":
        job = replace(job, config=replace(job.config, model=replace(job.config.model, device=str(device))))
    peers = Peers.here()
    journal = Journal(job.out / journal_file(peers.rank), goes_on=True)
    try:
        train(job, data_of(job), journal, peers)
    finally:
        journal.close()


def _cause(error: TrainingFailedError) -> FlashSDError:
    """What went wrong in a worker, where Ray tells."""
    failures = list(getattr(error, "worker_failures", {}).values())
    raised = [getattr(failure, "_base_exc", failure) for failure in failures]
    ours = [one for one in raised if isinstance(one, FlashSDError)]
    return ours[0] if ours else UnavailableError(f"training on workers failed: {raised[0] if raised else error}")


@contextmanager
def _ray(workers: Workers) -> Iterator[None]:
    """Ray runs; one that we started is stopped again.

    Raises:
        ConfigError: it cannot be reached or started.
    """
    if ray.is_initialized():
        yield
        return
    prepare_ray_environment()
    options: dict[str, Any] = {"address": workers.address}
    if workers.address is None:
        cpus = 1 + math.ceil(workers.count * workers.cpus)  # one for the part of Ray Train that minds the workers
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"Ray cannot be reached or started: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _followed(journals: Sequence[Path], listener: Listener) -> Iterator[None]:
    """Inside, the listener hears what the first worker tells, and what any of them had to leave out."""
    for path in journals:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    files = [path.open(encoding="utf-8") for path in journals]
    for file in files:
        file.seek(0, os.SEEK_END)
    done = threading.Event()
    rests = [""] * len(files)

    def follow() -> None:
        is_last = False
        while not is_last:
            is_last = done.wait(FOLLOW_EVERY_S)
            for rank, file in enumerate(files):
                *lines, rests[rank] = (rests[rank] + file.read()).split("\n")
                for event in map(read_event, lines):
                    if rank == 0 or isinstance(event, LeftOut):
                        listener(event)

    thread = threading.Thread(target=follow, name="training-journals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        for file in files:
            file.close()
