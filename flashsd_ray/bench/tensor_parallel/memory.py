"""How much each rank holds, and how much memory loading it takes; every share is loaded in a process of its own."""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flashsd_ray.config import ModelConfig

RESET_PEAK = "5"  # what Linux takes in /proc/self/clear_refs


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What one process has after loading."""

    model: str
    ranks: int  # 1: the whole target
    rank: int
    layer_bytes: int
    vocabulary_bytes: int  # embedding and head
    other_bytes: int  # vision tower and projector
    growth_bytes: int  # most memory while loading, beyond what the process had before

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def measure_memory(config: ModelConfig, ranks: int) -> list[Loaded]:
    """The whole target first, then every rank's share of it."""
    shares = [(config, 0), *((replace(config, tensor_parallel=ranks), rank) for rank in range(ranks))]
    # A fresh process for each: what one has freed would flatter the next.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(loaded, shares, chunksize=1)


def loaded(config: ModelConfig, rank: int) -> Loaded:
    """What this process has once the share is in memory."""
    from flashsd_ray.models.outline import shape_of
    from flashsd_ray.models.parallel.loading import load_first_share, load_share
    from flashsd_ray.models.parallel.worker import peak_bytes
    from flashsd_ray.models.pretrained import (
        PretrainedTarget,
        config_of,
        family_of,
        load_target,
        resolve_device,
        resolve_dtype,
    )

    library = config_of(config.name)
    dtype = resolve_dtype(config.dtype, resolve_device(config.device))
    shape_of(library, dtype)  # imports what loading imports, and holds nothing
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before = peak_bytes()
    if rank:
        text_model, head = load_share(config, rank)
        parameters = dict(text_model.named_parameters())
        others = 0
    else:
        if config.tensor_parallel > 1:
            target: PretrainedTarget
            target, head = load_first_share(config)
        else:
            target = load_target(config.name, dtype=config.dtype, device=config.device)
            head = target.model.get_output_embeddings().weight.data
        path = f"{family_of(library, config.name).text_model}."
        mine = dict(target.model.model.named_parameters())
        parameters = {name.removeprefix(path): value for name, value in mine.items() if name.startswith(path)}
        others = sum(value.nbytes for name, value in mine.items() if not name.startswith(path))
    growth = peak_bytes() - before
    embedding = parameters["embed_tokens.weight"]
    is_tied = head.data_ptr() == embedding.data_ptr()
    return Loaded(
        model=config.name,
        ranks=config.tensor_parallel,
        rank=rank,
        layer_bytes=sum(value.nbytes for name, value in parameters.items() if name != "embed_tokens.weight"),
        vocabulary_bytes=embedding.nbytes + (0 if is_tied else head.nbytes),
        other_bytes=others,
        growth_bytes=growth,
    )
