"""One frozen tree of settings: every limit and every choice has a name here, and unknown names are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

from flashsd_ray.errors import ConfigError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaConfig:
    """How files become frames, and how large they may be."""

    num_frames: int = field(default=8, metadata={"help": "frames sampled uniformly from a video"})
    fps: float | None = field(default=None, metadata={"help": "sample by this rate instead of by count"})
    max_frames: int = field(default=128, metadata={"help": "most frames taken from one video or directory"})
    max_bytes: int = field(default=2 * 2**30, metadata={"help": "largest file that is opened"})
    max_duration_s: float = field(default=4 * 3600.0, metadata={"help": "longest video that is read"})
    max_pixels: int = field(default=64 * 2**20, metadata={"help": "most pixels of one decoded picture"})
    max_decoded_bytes: int = field(default=2**30, metadata={"help": "most memory for the sampled frames of one input"})
    max_streams: int = field(default=64, metadata={"help": "most streams in one container"})
    max_decode_s: float = field(default=120.0, metadata={"help": "longest time spent on decoding one input"})
    max_inputs: int = field(default=64, metadata={"help": "most images and videos in one request"})
    max_image_bytes: int = field(default=256 * 2**20, metadata={"help": "largest still or animated picture file"})
    max_source_frames: int = field(default=2_000_000, metadata={"help": "most frames a video or directory may hold"})
    directory_fps: float = field(default=24.0, metadata={"help": "frame rate that a directory of frames stands for"})

    def __post_init__(self) -> None:
        """Raises ConfigError when a limit is not positive."""
        for item in fields(self):
            value = getattr(self, item.name)
            _check(value is None or value > 0, f"media.{item.name} must be positive, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which target is loaded, and how."""

    name: str = field(default="demo", metadata={"help": "hub id, local directory, or 'demo' for the bundled model"})
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "auto: bfloat16 where the device multiplies it fast, else float32"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1 ..."})
    threads: int = field(
        default=0, metadata={"help": "CPU threads of one operation; 0: one for small models, torch's choice for others"}
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when the number of threads is negative."""
        _check(self.threads >= 0, f"model.threads must be 0 (auto) or positive, got {self.threads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationConfig:
    """Who drafts, how far, and how drafts are judged."""

    drafter: str = field(default="auto", metadata={"help": "auto, a registered drafter, or a checkpoint directory"})
    compressor: str = field(default="auto", metadata={"help": "auto: the one the drafter was trained with"})
    draft_length: int = field(default=0, metadata={"help": "tokens drafted per round; 0: as many as the drafter can"})
    acceptance: Literal["coupled", "rejection"] = field(
        default="coupled",
        metadata={"help": "sampling rule; coupled: same seed, same text whatever the drafter; both are lossless"},
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when the draft length is negative."""
        _check(
            self.draft_length >= 0, f"speculation.draft_length must be 0 (auto) or positive, got {self.draft_length}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingConfig:
    """How many requests are decoded together, and in how much memory."""

    max_running: int = field(default=32, metadata={"help": "most requests decoded at the same time"})
    max_waiting: int = field(default=1024, metadata={"help": "most requests waiting for a place"})
    cache_rows: int = field(default=16384, metadata={"help": "token positions that the target's KV cache holds"})
    prefill_rows: int = field(default=1024, metadata={"help": "most prompt positions forwarded in one round"})
    max_new_tokens: int = field(default=4096, metadata={"help": "largest max_new_tokens a request may ask for"})
    share_prefixes: bool = field(default=True, metadata={"help": "requests that begin alike share cache rows"})

    def __post_init__(self) -> None:
        """Raises ConfigError when a limit is not positive."""
        for item in fields(self):
            _check(
                getattr(self, item.name) > 0 or item.name == "share_prefixes",
                f"scheduling.{item.name} must be positive",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that can be set."""

    model: ModelConfig = field(default_factory=ModelConfig)
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)
    scheduling: SchedulingConfig = field(default_factory=SchedulingConfig)
    media: MediaConfig = field(default_factory=MediaConfig)


def with_overrides(
    config: Config,
    assignments: Iterable[str],  # each "section.name=value"
) -> Config:
    """A copy of the config in which every assignment holds.

    Raises:
        ConfigError: a name is unknown (the nearest valid one is named) or a value has the wrong type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        section_name, dot, name = path.strip().partition(".")
        _check(bool(equals and dot), f"expected section.name=value, got {assignment!r}")
        section = _lookup(config, section_name, section_name)
        _check(is_dataclass(section), f"{section_name} is not a section")
        _lookup(section, name, path.strip())
        value = _parse(text.strip(), get_type_hints(type(section))[name], path.strip())
        config = replace(config, **{section_name: replace(section, **{name: value})})
    return config


def _lookup(node: Any, name: str, path: str) -> Any:
    names = [item.name for item in fields(node)]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ConfigError(f"unknown setting {path!r}; did you mean {close[0]!r}? Known here: {', '.join(names)}")
    return getattr(node, name)


def _parse(text: str, annotation: Any, path: str) -> Any:
    choices = [a for a in get_args(annotation) if isinstance(a, str)]
    if choices:
        _check(text in choices, f"{path} must be one of {', '.join(choices)}, got {text!r}")
        return text
    kinds = set(get_args(annotation) or (annotation,))
    if type(None) in kinds and text in ("", "none", "null"):
        return None
    if bool in kinds:
        _check(text in ("true", "false"), f"{path} must be true or false, got {text!r}")
        return text == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                raise ConfigError(f"{path} must be a number ({kind.__name__}), got {text!r}") from None
    return text
