"""What a row's drafter is worth in the engine: held-out clips decoded with it and plainly, in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flashsd_ray.bench.ablation.rows import AblationRow
from flashsd_ray.bench.decode.contenders import Contender, EngineContender
from flashsd_ray.bench.decode.measuring import Measured, measure
from flashsd_ray.bench.decode.plan import Plan, cells_of
from flashsd_ray.bench.decode.summary import PLAIN
from flashsd_ray.bench.journal import ResultJournal
from flashsd_ray.bench.scrambling import scramble
from flashsd_ray.bench.workload import Question
from flashsd_ray.config import Config, SpeculationConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.models.drafters.neural import NeuralDrafter
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.types import EncodedPrompt

JOURNAL = "clips.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examination:
    """The questions that all rows are asked."""

    target: PretrainedTarget
    plain: Engine
    questions: Sequence[Question]
    prompts: Mapping[str, EncodedPrompt]  # by digest of the clip
    config: Config
    max_new_tokens: int
    temperatures: tuple[float, ...]


def evaluated(
    row: AblationRow,
    drafter: Path | None,  # its folder; None: nothing is drafted
    examination: Examination,
    folder: Path,
    seconds: float,
    count: Callable[[], None],
) -> list[Measured]:
    """Every clip answered both ways; what was answered before is read from the folder."""
    contenders: dict[str, Contender] = {
        PLAIN: EngineContender(PLAIN, examination.plain, examination.prompts, 0),
    }
    if drafter is not None:
        engine = _engine(row, drafter, examination)
        length = None if row.is_gated else engine.drafter.max_draft_length
        contenders[row.name] = EngineContender(row.name, engine, examination.prompts, length)
    plan = Plan(
        cells=cells_of(examination.temperatures, (1,)),
        num_clips=len(examination.questions),
        contenders=tuple(contenders),
    )
    identity = {
        "row": asdict(row),
        "fingerprint": examination.target.fingerprint,
        "dtype": str(examination.target.decoder.dtype),
        "clips": [question.visual.digest for question in examination.questions],
        "max_new_tokens": examination.max_new_tokens,
    }
    return measure(
        plan,
        contenders,
        examination.questions,
        ResultJournal(folder / JOURNAL, identity),
        max_new_tokens=examination.max_new_tokens,
        seconds=seconds,
        count=count,
    )


def _engine(row: AblationRow, drafter: Path, examination: Examination) -> Engine:
    config = replace(examination.config, speculation=SpeculationConfig(drafter=str(drafter)))
    engine = Engine.around(examination.target, config)
    if row.is_scrambled and isinstance(engine.drafter, NeuralDrafter):
        scramble(engine.drafter.network)
    return engine
