"""The options of ``flashsd train drafter``, and the job that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsd_ray.cli.parsing import count_int, positive_int, positive_number

if TYPE_CHECKING:
    from flashsd_ray.training.drafter.job import Job
    from flashsd_ray.training.drafter.trainer import TrainingConfig
    from flashsd_ray.training.drafter.workers import Workers

GIBIBYTE = 2**30
DEFAULT_STEPS = 1000
# Option and the field of DrafterConfig that it sets.
SIZES = {
    "taps": "tap_layers",
    "draft_length": "draft_length",
    "layers": "num_layers",
    "intermediate": "intermediate_size",
    "markov_rank": "markov_rank",
    "source": "source",
    "lead": "has_lead",
    "causal": "is_causal",
}
# Option and the setting that it stands for.
SETTINGS = {
    "target": "model.name",
    "dtype": "model.dtype",
    "device": "model.device",
    "threads": "model.threads",
    "frames": "media.num_frames",
    "fps": "media.fps",
    "batch_size": "scheduling.max_running",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The parser knows every option."""
    _add_target_options(parser.add_argument_group("target"))
    _add_data_options(parser.add_argument_group("data"))
    _add_drafter_options(parser.add_argument_group("drafter (default: as its kind has it for the target)"))
    _add_training_options(parser.add_argument_group("training"))
    _add_output_options(parser.add_argument_group("output"))
    _add_worker_options(parser.add_argument_group("workers (Ray Train)"))


def _add_target_options(group: Any) -> None:
    group.add_argument("--target", metavar="NAME", default="demo", help="hub id, local directory, or 'demo' (default)")
    group.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), help="of the target's weights")
    group.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 ...")
    group.add_argument("--threads", metavar="N", type=positive_int, help="CPU threads of one operation")
    group.add_argument(
        "--set",
        dest="assignments",
        metavar="SECTION.NAME=VALUE",
        action="append",
        default=[],
        help="any setting of the configuration, such as scheduling.cache_rows=65536; may be repeated",
    )


def _add_data_options(group: Any) -> None:
    group.add_argument(
        "--data",
        metavar="SOURCE",
        required=True,
        help="JSON-lines file, directory of media, or town:N (questions about the town)",
    )
    group.add_argument(
        "--prompt", metavar="TEXT", action="append", default=[], help="to ask about every file of a directory; repeat"
    )
    group.add_argument("--heldout", metavar="N", type=positive_int, help="questions held out, by their pictures")
    group.add_argument("--heldout-data", metavar="SOURCE", help="questions of another source instead")
    rate = group.add_mutually_exclusive_group()
    rate.add_argument("--frames", metavar="N", type=positive_int, help="frames taken from a video (default: 8)")
    rate.add_argument("--fps", metavar="RATE", type=positive_number, help="frames per second of video instead")
    group.add_argument("--max-new-tokens", metavar="N", type=positive_int, default=128, help="longest answer (128)")
    group.add_argument(
        "--sampled-share", metavar="X", type=_share, default=0.3, help="of answers drawn at temperature 1 (0.3)"
    )
    group.add_argument("--batch-size", metavar="N", type=positive_int, help="answers decoded together (default: 32)")
    group.add_argument(
        "--max-errors", metavar="N", type=count_int, default=10, help="questions that may be broken (10)"
    )
    group.add_argument("--answers", metavar="DIR", type=Path, help="keep answers here, for several drafters (--out)")
    group.add_argument("--only-answers", action="store_true", help="ask the target and stop there")
    group.add_argument(
        "--keep-readings", action="store_true", help="keep hidden states on disk too, for drafters with the same taps"
    )


def _add_drafter_options(group: Any) -> None:
    group.add_argument("--kind", metavar="NAME", default="block", help="block (default), flash or ar")
    group.add_argument("--compressor", metavar="NAME", default="latent", help="of visual tokens (default: latent)")
    group.add_argument("--source", choices=("taps", "vision"), help="what the compressor reads (default: taps)")
    group.add_argument("--taps", metavar="L,L,..", type=_layers, help="layers of the target that it sees")
    group.add_argument("--draft-length", metavar="K", type=positive_int, help="most tokens of one draft")
    group.add_argument("--layers", metavar="N", type=positive_int, help="of its own")
    group.add_argument("--width", metavar="E", type=positive_int, help="of its rows (default: the target's)")
    group.add_argument("--intermediate", metavar="N", type=positive_int, help="width of its feed-forward part")
    group.add_argument("--markov-rank", metavar="N", type=positive_int, help="of block's bigram head")
    group.add_argument(
        "--lead",
        action=argparse.BooleanOptionalAction,
        help="slots of block begin with what the target thought last (default: yes)",
    )
    group.add_argument(
        "--causal",
        action=argparse.BooleanOptionalAction,
        help="slots of block see only those before them, so that a short draft is cheaper (default: yes)",
    )
    group.add_argument("--latents", metavar="N", type=positive_int, help="for each piece of visual tokens")


def _add_training_options(group: Any) -> None:
    group.add_argument("--steps", metavar="N", type=positive_int, help=f"how long (default: {DEFAULT_STEPS})")
    group.add_argument("--minutes", metavar="N", type=positive_number, help="how long; asking and judging not counted")
    group.add_argument("--readings", metavar="N", type=positive_int, default=8, help="answers in one step (8)")
    group.add_argument("--anchors", metavar="N", type=positive_int, default=16, help="places in each of them (16)")
    group.add_argument(
        "--memory-gib", metavar="N", type=positive_number, default=4.0, help="for what the target thought (4)"
    )
    group.add_argument(
        "--fresh", metavar="N", type=count_int, default=2, help="answers read anew each step if not all fit (2)"
    )
    group.add_argument("--learning-rate", metavar="X", type=positive_number, help="default: 6e-4; 3e-4 from width 4096")
    group.add_argument("--loss", choices=("overlap", "paper"), default="overlap", help="overlap (default), or FLASH's")
    group.add_argument("--hard", metavar="X", type=_weight, default=0.5, help="weight of cross entropy (0.5)")
    group.add_argument("--seed", metavar="N", type=int, default=0, help="of weights and batches")
    group.add_argument(
        "--evaluate-every", metavar="SECONDS", type=positive_number, default=60.0, help="judge and save (60)"
    )
    group.add_argument(
        "--check", metavar="N", type=count_int, default=16, help="answers decoded with the drafter at the end (16)"
    )


def _add_output_options(group: Any) -> None:
    group.add_argument("--out", metavar="DIR", type=Path, required=True, help="of the drafter")
    group.add_argument("--resume", action="store_true", help="go on where a training stopped, if one did")
    group.add_argument("--overwrite", action="store_true", help="begin anew whatever is there")


def _add_worker_options(group: Any) -> None:
    group.add_argument("--workers", metavar="N", type=positive_int, help="processes that train together")
    group.add_argument("--worker-cpus", metavar="N", type=positive_number, default=1.0, help="of each (1)")
    group.add_argument("--worker-gpus", metavar="N", type=count_int, default=0, help="of each (0)")
    group.add_argument("--restarts", metavar="N", type=count_int, default=0, help="after a worker was lost (0)")
    group.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster (default: a Ray of our own)")


def job_of(arguments: argparse.Namespace, command: str) -> Job:
    """What the command line asks for.

    Raises:
        ConfigError: a setting, a kind or a compressor is unknown, or a value is not allowed.
    """
    from flashsd_ray.config import Config, with_overrides
    from flashsd_ray.training.drafter.job import Design, Job

    given = ((path, getattr(arguments, option)) for option, path in SETTINGS.items())
    assignments = [f"{path}={value}" for path, value in given if value is not None]
    sizes = {field: value for option, field in SIZES.items() if (value := getattr(arguments, option)) is not None}
    return Job(
        out=arguments.out,
        data=arguments.data,
        prompts=tuple(arguments.prompt),
        heldout_data=arguments.heldout_data,
        num_heldout=arguments.heldout,
        sampled_share=arguments.sampled_share,
        answers=arguments.answers,
        only_answers=arguments.only_answers,
        keeps_readings=arguments.keep_readings,
        config=with_overrides(Config(), [*arguments.assignments, *assignments]),
        design=Design(
            kind=arguments.kind,
            compressor=arguments.compressor,
            width=arguments.width,
            num_latents=arguments.latents,
            sizes=sizes,
        ),
        training=_training_of(arguments),
        learning_rate=arguments.learning_rate,
        max_new_tokens=arguments.max_new_tokens,
        max_errors=arguments.max_errors,
        memory_bytes=int(arguments.memory_gib * GIBIBYTE),
        num_checked=arguments.check,
        command=command,
    )


def _training_of(arguments: argparse.Namespace) -> TrainingConfig:
    from flashsd_ray.training.drafter.losses import FLASH_PAPER, LossWeights
    from flashsd_ray.training.drafter.trainer import TrainingConfig

    is_paper = arguments.loss == "paper"
    usual = TrainingConfig()
    return TrainingConfig(
        minutes=arguments.minutes,
        steps=arguments.steps if arguments.steps or arguments.minutes else DEFAULT_STEPS,
        num_readings=arguments.readings,
        num_anchors=arguments.anchors,
        num_fresh=arguments.fresh,
        seed=arguments.seed,
        evaluate_every_s=arguments.evaluate_every,
        weights=FLASH_PAPER if is_paper else LossWeights(hard=arguments.hard),
        early=1.0 if is_paper else usual.early,
    )


def workers_of(arguments: argparse.Namespace) -> Workers:
    """The processes that the command line asks for."""
    from flashsd_ray.training.drafter.workers import Workers

    return Workers(
        count=arguments.workers,
        cpus=arguments.worker_cpus,
        gpus=arguments.worker_gpus,
        restarts=arguments.restarts,
        address=arguments.address,
    )


def _layers(text: str) -> tuple[int, ...]:
    """The layers of ``3,6,9``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be layers such as 3,6,9, got {text!r}") from None


def _share(text: str) -> float:
    return _number(text, 1.0, "a share from 0 to 1")


def _weight(text: str) -> float:
    return _number(text, 1e6, "a number, 0 or more")


def _number(text: str, highest: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}") from None
    if not 0.0 <= value <= highest:
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
    return value
