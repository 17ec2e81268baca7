"""``python -m flashsd_ray.training.drafter --target demo --kind block --compressor latent --minutes 8 --out DIR``."""

from __future__ import annotations

import argparse
import logging
import platform
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from flashsd_ray import __version__
from flashsd_ray.config import Config, MediaConfig, SchedulingConfig
from flashsd_ray.engine.local import view_of
from flashsd_ray.models.drafters import checkpoint
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.build import build_network
from flashsd_ray.models.drafters.registry import NETWORKS
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.training.drafter.answers import Answer, answers_file, collect_answers
from flashsd_ray.training.drafter.losses import LossWeights
from flashsd_ray.training.drafter.questions import Question, read_manifest, world_questions
from flashsd_ray.training.drafter.readings import Reader
from flashsd_ray.training.drafter.trainer import Trainer, TrainingConfig

HELDOUT_SHARE = 0.05  # of the lines of a manifest
GIBIBYTE = 2**30

logger = logging.getLogger(__name__)


def main() -> None:
    """The drafter named on the command line is trained and saved."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    target = load_target(arguments.target, dtype=arguments.dtype)
    config = Config(
        media=MediaConfig(num_frames=arguments.frames), scheduling=SchedulingConfig(max_running=arguments.batch)
    )
    path = answers_file(arguments.answers or arguments.out, target)
    train, heldout = (
        collect_answers(target, questions, path, config, arguments.max_new_tokens)
        for questions in _questions(arguments)
    )
    logger.info("%d answers to learn from, %d held out", len(train), len(heldout))
    if arguments.kind is not None:
        _train(arguments, target, train, heldout, config.media)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flashsd_ray.training.drafter", description=__doc__)
    parser.add_argument("--target", default="demo", help="hub id, directory, or 'demo'")
    parser.add_argument("--kind", choices=sorted(NETWORKS), help="left out: only answers are collected")
    parser.add_argument("--compressor", default="latent")
    parser.add_argument("--source", choices=("taps", "vision"), default="taps")
    parser.add_argument("--taps", type=_numbers, help="tapped layers, such as 2,5,8")
    parser.add_argument("--draft-length", type=int)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--intermediate", type=int, help="width of the feed-forward part")
    parser.add_argument("--markov-rank", type=int)
    parser.add_argument("--latents", type=int, help="for each piece of a segment")
    parser.add_argument("--loss", choices=("overlap", "paper"), default="overlap")
    parser.add_argument("--hard", type=float, default=LossWeights().hard, help="weight of cross entropy")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--learning-rate", type=float, default=TrainingConfig().learning_rate)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="JSON lines of prompts and visuals; left out: the synthetic world")
    parser.add_argument("--answers", type=Path, help="folder of the answers' file; left out: --out")
    parser.add_argument("--questions", type=int, default=4000, help="about the synthetic world")
    parser.add_argument("--heldout", type=int, default=60, help="questions about held-out clips")
    parser.add_argument("--frames", type=int, default=MediaConfig().num_frames)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32, help="answers decoded together")
    parser.add_argument("--memory-gib", type=float, default=6.0, help="for readings")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _questions(arguments: argparse.Namespace) -> tuple[list[Question], list[Question]]:
    if arguments.data is None:
        return world_questions(arguments.questions, "train"), world_questions(arguments.heldout, "heldout", per_clip=2)
    questions = read_manifest(arguments.data)
    num_heldout = max(1, round(HELDOUT_SHARE * len(questions)))
    return questions[num_heldout:], questions[:num_heldout]


def _train(
    arguments: argparse.Namespace,
    target: PretrainedTarget,
    train: list[Answer],
    heldout: list[Answer],
    media: MediaConfig,
) -> None:
    view = view_of(target)
    drafter_config = _drafter_config(arguments, view)
    network = build_network(arguments.kind, view, seed=arguments.seed, config=drafter_config)
    reader = Reader(target, drafter_config.tap_layers, media, keeps_embeddings=arguments.source == "vision")
    max_bytes = int(arguments.memory_gib * GIBIBYTE)
    heldout_readings = list(reader.read_all(heldout, max_bytes))
    readings = list(reader.read_all(train, max_bytes))
    weights = LossWeights(hard=arguments.hard)
    if arguments.loss == "paper":
        weights = LossWeights(hard=0.0, overlap=0.1, feature=1.0, slot_decay=0.0)
    config = TrainingConfig(
        minutes=arguments.minutes,
        steps=arguments.steps if arguments.steps or arguments.minutes else 1000,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        weights=weights,
        early=1.0 if arguments.loss == "paper" else TrainingConfig().early,
    )
    size = sum(parameter.numel() for parameter in network.parameters())
    logger.info(
        "%d of %d answers are read; the %s drafter has %d parameters", len(readings), len(train), arguments.kind, size
    )
    trainer = Trainer(network, readings, heldout_readings, config, arguments.out)
    quality = trainer.run()
    provenance: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "flashsd_ray.training.drafter", *sys.argv[1:]]),
        "versions": {"flashsd_ray": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "training": asdict(config),
        "steps": trainer.step,
        "minutes": round(trainer.spent_s / 60.0, 2),
        "num_answers": len(readings),
        "num_parameters": size,
        "quality": quality.to_json(),
    }
    checkpoint.save(arguments.out, network, provenance)
    logger.info("wrote %s: %s", arguments.out, quality.to_json())


def _drafter_config(arguments: argparse.Namespace, view: TargetView) -> DrafterConfig:
    config = NETWORKS[arguments.kind].default_config(view, arguments.compressor)
    chosen = {
        "tap_layers": arguments.taps,
        "draft_length": arguments.draft_length,
        "num_layers": arguments.layers,
        "intermediate_size": arguments.intermediate,
        "markov_rank": arguments.markov_rank,
    }
    compressor = config.compressor
    if arguments.latents is not None:
        compressor = replace(compressor, num_latents=arguments.latents)
    given = {name: value for name, value in chosen.items() if value is not None}
    return replace(config, **given, compressor=compressor, source=arguments.source)


if __name__ == "__main__":
    main()
