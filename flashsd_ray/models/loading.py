"""From settings to a target: in this process, or split over several."""

from __future__ import annotations

from flashsd_ray.config import ModelConfig
from flashsd_ray.models.allocator import keep_freed_memory
from flashsd_ray.models.pretrained import PretrainedTarget, load_target


def load_configured(config: ModelConfig) -> PretrainedTarget:
    """The target that the settings name can decode, torch uses as many threads as they say, and on a CPU keeps its memory.

    A split target gets processes of its own for all ranks but the first; they end with this one.

    Raises:
        CheckpointError: it is missing, damaged or unsupported, or cannot be split as the settings say.
        LaneLostError: a rank ended while it was started.
    """
    if config.tensor_parallel > 1:
        from flashsd_ray.models.parallel.local import load_split

        return load_split(config)
    target = load_target(config.name, dtype=config.dtype, device=config.device)
    target.limit_threads(config.threads)
    if target.model.device.type == "cpu":
        keep_freed_memory()
    if config.attention != "auto":
        target.decoder.attends_wide = config.attention == "float32"
    return target


def load_undecoding(config: ModelConfig) -> PretrainedTarget:
    """The target for a process that encodes or drafts: of a split one, its layers stay out of memory.

    Raises:
        CheckpointError: it is missing, damaged or unsupported.
    """
    if config.tensor_parallel == 1:
        return load_configured(config)
    from flashsd_ray.models.parallel.loading import load_outline

    target = load_outline(config)
    target.limit_threads(config.threads)
    return target
