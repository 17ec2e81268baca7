"""A group of ranks on this machine: this process leads, and each other rank has a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from flashsd_ray.config import ModelConfig
from flashsd_ray.errors import CheckpointError, LaneLostError
from flashsd_ray.models.parallel.loading import PartialTarget, load_leading
from flashsd_ray.models.parallel.orders import Order, encode
from flashsd_ray.models.parallel.share import share_of
from flashsd_ray.models.pretrained import config_of, limit_threads, resolve_device

HOST = "127.0.0.1"


class LocalCrew:
    """The processes of all ranks but the first."""

    def __init__(self, config: ModelConfig) -> None:
        """The processes are loading their shares."""
        self._processes = [_started(config, rank) for rank in range(1, config.tensor_parallel)]
        # Also when nobody closes: at the end of this process, or when the target is let go.
        self._end = weakref.finalize(self, _end_all, tuple(self._processes))

    def tell(self, order: Order) -> None:
        """Every rank gets the order.

        Raises:
            LaneLostError: one of them has ended.
        """
        line = encode(order) + b"\n"
        for number, process in enumerate(self._processes, start=1):
            try:
                _pipe(process.stdin).write(line)
                _pipe(process.stdin).flush()
            except (OSError, ValueError) as error:
                raise LaneLostError(f"rank {number} has ended: {error}") from error

    def ask(self, order: Order) -> list[dict[str, Any]]:
        """What every rank answers.

        Raises:
            LaneLostError: one of them has ended.
            CheckpointError: one of them could not load its share.
        """
        self.tell(order)
        answers = []
        for number, process in enumerate(self._processes, start=1):
            line = _pipe(process.stdout).readline()
            if not line:
                raise LaneLostError(f"rank {number} has ended; its own messages say why")
            answer = json.loads(line)
            if "error" in answer:
                raise CheckpointError(f"rank {number}: {answer['error']}")
            answers.append(answer)
        return answers

    @property
    def process_ids(self) -> list[int]:
        """Of all ranks but the first."""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """The processes have ended."""
        self._end()


def load_split(config: ModelConfig) -> PartialTarget:
    """The target, led by this process; the other ranks run on this machine and end with it.

    Raises:
        CheckpointError: it is missing, damaged or unsupported, cannot be split as the settings say, or there are not
            enough GPUs here.
        LaneLostError: a rank ended while it was started.
    """
    _check_devices(config)
    share_of(config_of(config.name).get_text_config(), 0, config.tensor_parallel)  # refused before anything is started
    crew = LocalCrew(config)
    try:
        target = load_leading(on_device(config, 0), crew, HOST)
    except BaseException:
        crew.close()
        raise
    limit_threads(target.decoder, config.threads, config.tensor_parallel)
    return target


def on_device(config: ModelConfig, rank: int) -> ModelConfig:
    """The settings of one rank, which has a GPU of its own where there are any."""
    device = resolve_device(config.device)
    if device.type != "cuda":
        return config
    return replace(config, device=f"cuda:{(device.index or 0) + rank}")


def _check_devices(config: ModelConfig) -> None:
    device = resolve_device(config.device)
    last = (device.index or 0) + config.tensor_parallel
    if device.type == "cuda" and last > torch.cuda.device_count():
        raise CheckpointError(
            f"model.tensor_parallel is {config.tensor_parallel} on {config.device}: {last} GPUs are needed on this "
            f"machine, there are {torch.cuda.device_count()}"
        )


def _started(config: ModelConfig, rank: int) -> subprocess.Popen[bytes]:
    package = str(Path(__file__).parents[3])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "flashsd_ray.models.parallel.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    task = {"model": asdict(on_device(config, rank)), "rank": rank, "host": HOST}
    _pipe(process.stdin).write(json.dumps(task).encode() + b"\n")
    _pipe(process.stdin).flush()
    return process


def _pipe(stream: object) -> Any:
    return stream


def _end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with suppress(OSError):  # it had ended, with an order on the way
            _pipe(process.stdin).close()
        process.kill()  # it holds nothing that anybody wants back
        process.wait()
        _pipe(process.stdout).close()
