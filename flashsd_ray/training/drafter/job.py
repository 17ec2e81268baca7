"""One training as somebody asks for it: everything that a process needs to know to take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flashsd_ray.config import Config
from flashsd_ray.errors import ConfigError
from flashsd_ray.models import compressors
from flashsd_ray.models.drafters.architecture import DrafterConfig, attention_shape, compressor_config
from flashsd_ray.models.drafters.registry import NETWORKS
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.training.drafter.questions import SAMPLED_SHARE
from flashsd_ray.training.drafter.state import forget_state, is_finished, is_unfinished
from flashsd_ray.training.drafter.trainer import TrainingConfig

OPTIMIZER = "Muon and AdamW"  # what a state on disk was made by; one of before has AdamW's moments only
WIDE, SLOWER = 4096, 0.5  # from this width of the drafter on, the usual learning rate is so much smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Which drafter is built; what is left out is as its kind has it for the target."""

    kind: str = "block"
    compressor: str = "latent"
    width: int | None = None
    num_latents: int | None = None  # of each piece of a segment
    sizes: Mapping[str, Any] = field(default_factory=dict)  # other fields of DrafterConfig

    def __post_init__(self) -> None:
        """Raises ConfigError when the kind or the compressor is unknown."""
        if self.kind not in NETWORKS:
            raise ConfigError(f"no drafter of kind {self.kind!r} can be trained; known: {', '.join(sorted(NETWORKS))}")
        if self.compressor not in compressors.names():
            raise ConfigError(f"unknown compressor {self.compressor!r}; known: {', '.join(compressors.names())}")

    def config(self, view: TargetView) -> DrafterConfig:
        """The sizes beside this target.

        Raises:
            ConfigError: they contradict each other or the target.
        """
        config = NETWORKS[self.kind].default_config(view, self.compressor)
        if self.width is not None:
            if not NETWORKS[self.kind].fuses_taps and self.width != view.hidden_size:
                raise ConfigError(f"a drafter of kind {self.kind!r} is as wide as its target, {view.hidden_size}")
            heads, kv_heads, head_dim = attention_shape(self.width)
            config = replace(
                config,
                width=self.width,
                num_heads=heads,
                num_kv_heads=kv_heads,
                head_dim=head_dim,
                intermediate_size=2 * self.width,
                compressor=compressor_config(self.compressor, view, self.width),
            )
        compressor = config.compressor
        if self.num_latents is not None:
            compressor = replace(compressor, num_latents=self.num_latents)
        config = replace(config, **self.sizes, compressor=compressor)
        if config.tap_layers[-1] > view.num_layers:
            raise ConfigError(f"the target has {view.num_layers} layers, there is none to tap at {config.tap_layers}")
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained for whom, on what, how long, and where it goes."""

    out: Path
    data: str
    prompts: tuple[str, ...] = ()
    heldout_data: str | None = None
    num_heldout: int | None = None
    sampled_share: float = SAMPLED_SHARE
    answers: Path | None = None  # folder of the answers; None: out
    only_answers: bool = False
    keeps_readings: bool = False
    config: Config = field(default_factory=Config)  # of the target, its media and its batches
    design: Design = field(default_factory=Design)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    learning_rate: float | None = None  # None: as suits the drafter's width
    max_new_tokens: int = 128
    max_errors: int = 10
    memory_bytes: int = 4 * 2**30  # for readings, in each process
    num_checked: int = 16  # held-out answers that are decoded again with the drafter
    command: str = ""  # that asked for this, for the model card

    def training_of(self, config: DrafterConfig) -> TrainingConfig:
        """How such a drafter is trained."""
        usual = self.training.learning_rate * (SLOWER if config.width >= WIDE else 1.0)
        return replace(self.training, learning_rate=self.learning_rate or usual)

    @property
    def store(self) -> Path:
        """Where answers and readings are kept."""
        return self.answers or self.out

    def with_absolute_paths(self) -> Job:
        """The same job, whatever directory a process is in."""
        model = self.config.model
        return replace(
            self,
            out=self.out.absolute(),
            answers=self.answers and self.answers.absolute(),
            data=_absolute(self.data),
            heldout_data=self.heldout_data and _absolute(self.heldout_data),
            config=replace(self.config, model=replace(model, name=_absolute(model.name))),
        )

    def identity(self, fingerprint: str) -> dict[str, Any]:
        """What must be the same when a training goes on."""
        training = {**asdict(self.training), "learning_rate": self.learning_rate}
        for name in ("steps", "minutes", "evaluate_every_s", "report_every"):
            training.pop(name)
        design = {"kind": self.design.kind, **asdict(self.design)}
        return {"target": fingerprint, "data": self.data, "optimizer": OPTIMIZER, **design, **training}


def _absolute(name: str) -> str:
    """The whole path where the name is one; hub ids and the town keep their names."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def make_room(job: Job, *, resumes: bool, overwrites: bool) -> bool:
    """The folder is ready to be written to; returns False when a finished training is there and to be kept.

    Raises:
        ConfigError: something is there that would be lost.
    """
    if job.only_answers:
        return True
    if resumes:
        return not is_finished(job.out)
    if overwrites:
        forget_state(job.out)
    elif is_unfinished(job.out):
        raise ConfigError(
            f"{job.out} holds a training that is not finished: go on with --resume, or begin anew with --overwrite"
        )
    elif is_finished(job.out):
        raise ConfigError(f"{job.out} holds a trained drafter; name another --out, or say --overwrite")
    return True
