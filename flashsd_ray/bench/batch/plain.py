"""What one would write without this package: Ray Data, and transformers' ``generate`` for every batch."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import ray
import torch
from ray.data import ActorPoolStrategy

from flashsd_ray.batch.job import Job
from flashsd_ray.batch.parcels import ReadSegment, segments_of, segments_table
from flashsd_ray.batch.reading import read_clip
from flashsd_ray.batch.rows import Clip
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.loading import load_configured
from flashsd_ray.types import Conversation, VisualInput

READING_CPUS = 0.9


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user of the library can choose without changing what is answered."""

    attention: str = "sdpa"  # the library's own choice
    batch_size: int = 8  # clips of one call of generate
    num_actors: int = 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.attention} attention, batches of {self.batch_size}, {self.num_actors} actors"


@dataclass(frozen=True, slots=True)
class PlainRun:
    """What the plain pipeline gave."""

    captions: dict[str, str]  # by path and prompt
    num_tokens: int
    seconds: float  # from the beginning of the first batch to the end of the last
    idle_share: float  # of the actors' time, between batches
    cpu_s: float = 0.0  # processor time of the actors, inside their batches


class Generator:
    """The model in an actor, as the library's users have it."""

    def __init__(self, job: Job, attention: str) -> None:
        self._job = job
        self._name = uuid.uuid4().hex
        self._target = load_configured(job.config.model)
        self._target.model.set_attn_implementation(attention)
        self._encoder = LocalEncoder(self._target)

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        """Captions of the batch, and when it began and ended."""
        began_s, cpu_before_s = time.time(), time.process_time()
        segments = segments_of(batch)
        asked = [(segment.visual, segment.clip.prompts[0]) for segment in segments if segment.visual is not None]
        captions, lengths = self._generate(asked)
        count = len(captions)
        return {
            "row_id": [segment.clip.row_id for segment in segments],
            "caption": captions,
            "num_tokens": lengths,
            "actor": [self._name] * count,
            "cpu_s": [(time.process_time() - cpu_before_s) / max(1, count)] * count,
            "began_s": [began_s] * count,
            "ended_s": [time.time()] * count,
        }

    @torch.inference_mode()
    def _generate(self, asked: Sequence[tuple[VisualInput, str]]) -> tuple[list[str], list[int]]:
        target = self._target
        made = [self._encoder.process(Conversation.of(prompt, [visual])) for visual, prompt in asked]
        inputs = together(made, target.model.device, target.model.dtype)
        eos = list(target.eos_token_ids)
        output = target.model.generate(
            **inputs,
            max_new_tokens=self._job.sampling.max_new_tokens,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=eos,
        )
        captions, lengths = [], []
        for row in output[:, inputs["input_ids"].shape[1] :].tolist():
            end = next((place for place, token in enumerate(row) if token in eos), len(row))
            captions.append(target.detokenize(row[:end]))
            lengths.append(min(end + 1, len(row)))
        return captions, lengths


def together(made: Sequence[dict[str, Any]], device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """One left-padded batch of what the processor made of each conversation."""
    longest = max(one["input_ids"].shape[1] for one in made)
    batch = {}
    for name in made[0]:
        tensors = [torch.as_tensor(one[name]) for one in made]
        if tensors[0].shape == made[0]["input_ids"].shape:  # one value a token
            tensors = [torch.nn.functional.pad(one, (longest - one.shape[1], 0)) for one in tensors]
        joined = torch.cat(tensors)
        batch[name] = joined.to(device, dtype if joined.is_floating_point() else None)
    return batch


def plain_run(job: Job, clips: Sequence[Path], settings: Settings) -> PlainRun:
    """Every prompt of the job was asked about every clip by the plain pipeline, on the Ray that is there."""
    rows = [{"path": str(clip), "prompt": prompt} for clip in clips for prompt in job.prompts]
    size = settings.batch_size
    named = ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // size))
    # Not as many CPUs as an actor: Ray would put both into one process, where reading does not run beside the model.
    decoded = named.map_batches(partial(_read, job=job), batch_size=size, batch_format="numpy", num_cpus=READING_CPUS)
    answered = decoded.map_batches(
        Generator,
        fn_constructor_args=(job, settings.attention),
        batch_size=size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=settings.num_actors),
        num_cpus=job.config.placement.lane_cpus,
    )
    found: list[dict[str, Any]] = answered.take_all()
    spans = sorted({(row["actor"], row["began_s"], row["ended_s"]) for row in found})
    return PlainRun(
        captions={row["row_id"]: row["caption"] for row in found},
        num_tokens=sum(row["num_tokens"] for row in found),
        seconds=max(end_s for *_, end_s in spans) - min(begin_s for _, begin_s, _ in spans),
        idle_share=idle_share(spans),
        cpu_s=sum(row["cpu_s"] for row in found),
    )


def idle_share(spans: Sequence[tuple[str, float, float]]) -> float:
    """Of the time between each actor's first batch and its last, the share in which it had none; spans are sorted."""
    idle_s = total_s = 0.0
    for _, own in itertools.groupby(spans, key=itemgetter(0)):
        times = [(begin_s, end_s) for _, begin_s, end_s in own]
        total_s += times[-1][1] - times[0][0]
        idle_s += sum(max(0.0, after[0] - before[1]) for before, after in itertools.pairwise(times))
    return idle_s / total_s if total_s else 0.0


def _read(batch: dict[str, Any], job: Job) -> Any:
    return segments_table(list(_segments(batch["path"], batch["prompt"], job)))


def _segments(paths: Sequence[str], prompts: Sequence[str], job: Job) -> Iterator[ReadSegment]:
    for path, prompt in zip(map(str, paths), map(str, prompts), strict=True):
        yield from read_clip(Clip(row_id=f"{path} {prompt}", source=path, prompts=(prompt,)), job)
