"""What a run does with every clip: everything that decides about its output, in one value that travels to all workers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from flashsd_ray.batch.segments.rule import SegmentRule
from flashsd_ray.config import Config
from flashsd_ray.errors import ConfigError
from flashsd_ray.types import SamplingParams

DEFAULT_PROMPTS = {"image": "Describe the image in detail.", "video": "Describe the video in detail."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How every clip is read, asked about and checked."""

    config: Config = field(default_factory=Config)
    prompts: tuple[str, ...] = ()  # asked about every clip that brings none; empty: for a detailed description
    sampling: SamplingParams = field(default_factory=SamplingParams)
    num_frames: int | None = None  # of each segment; None: media.num_frames
    fps: float | None = None  # frames per second instead
    segments: SegmentRule = field(default_factory=SegmentRule)
    json_schema: str = ""  # JSON text; empty: captions may be anything
    draft_length: int | None = None  # None: the engine decides each round

    def __post_init__(self) -> None:
        """Raises ConfigError when the schema is none."""
        if self.json_schema:
            from flashsd_ray.batch.validation import check_schema

            check_schema(self.json_schema)
        if any(not prompt.strip() for prompt in self.prompts):
            raise ConfigError("a prompt must not be empty")

    def identity(self) -> dict[str, Any]:
        """What decides about captions, by name; who drafts does not, because decoding is lossless."""
        config = self.config
        return {
            "model": config.model.name,
            "dtype": config.model.dtype,
            "acceptance": config.speculation.acceptance,
            "frames": self.num_frames or config.media.num_frames,
            "fps": self.fps if self.num_frames is None else None,
            "segments": asdict(self.segments),
            "rows_per_unit": config.batch.rows_per_unit,
            "prompts": list(self.prompts),
            "sampling": asdict(self.sampling),
            "json_schema": self.json_schema,
        }

    def questions(self, kind: str, own: tuple[str, ...]) -> tuple[str, ...]:
        """What is asked about a picture or a video that brings these prompts of its own."""
        return own or self.prompts or (DEFAULT_PROMPTS[kind],)

    def content_key(self, digest: str, prompt: str, fingerprint: str) -> str:
        """Equal for requests that must have the same answer."""
        asked = json.dumps([digest, prompt, fingerprint, asdict(self.sampling)], sort_keys=True)
        return hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()
