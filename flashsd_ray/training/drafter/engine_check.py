"""The trained drafter at work: held-out answers decoded again with it, and with lookup, which needs no training."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flashsd_ray.config import Config, SpeculationConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.training.drafter.answers import Answer
from flashsd_ray.training.drafter.job import Job
from flashsd_ray.training.drafter.questions import load_visuals
from flashsd_ray.training.drafter.readings import is_greedy
from flashsd_ray.training.drafter.series import Series
from flashsd_ray.types import CaptionRequest, SamplingParams

BASELINE = "lookup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the engine counted with one drafter."""

    drafter: str
    tau: float
    num_answers: int
    num_equal: int  # of them, token for token those of plain decoding


def check_in_engine(job: Job, target: PretrainedTarget, heldout: Series[Answer]) -> list[Checked]:
    """The drafter in the job's folder and the baseline, each on the first greedy answers; empty if there is none."""
    answers: list[Answer] = []
    for place in range(len(heldout)):
        if len(answers) < job.num_checked and is_greedy(heldout[place].question):
            answers.append(heldout[place])
    names = {job.design.kind: str(job.out), BASELINE: BASELINE}
    return [_check(job, target, name, path, answers) for name, path in names.items() if answers]


def _check(job: Job, target: PretrainedTarget, name: str, path: str, answers: list[Answer]) -> Checked:
    config: Config = replace(job.config, speculation=SpeculationConfig(drafter=path))
    engine = Engine.around(target, config)
    stats, num_equal = SpeculationStats(), 0
    for number, answer in enumerate(answers):
        request = CaptionRequest(
            request_id=str(number),
            prompt=answer.question.prompt,
            visuals=load_visuals(answer.question, config.media),
            sampling=SamplingParams(max_new_tokens=job.max_new_tokens),
            draft_length=engine.drafter.max_draft_length,
        )
        caption = engine.caption(request)
        stats += caption.stats
        num_equal += caption.token_ids == answer.token_ids
    return Checked(drafter=name, tau=round(stats.tau, 3), num_answers=len(answers), num_equal=num_equal)
