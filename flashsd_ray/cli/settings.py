"""Options that several verbs share, and what they make of the configuration."""

from __future__ import annotations

import argparse
from pathlib import Path

from flashsd_ray.cli.parsing import count_int, positive_int
from flashsd_ray.config import Config, from_mapping, with_overrides
from flashsd_ray.errors import ConfigError
from flashsd_ray.types import SamplingParams

# Option and the setting that it stands for; an option wins over --set.
SHORTHANDS = {
    "model": "model.name",
    "dtype": "model.dtype",
    "device": "model.device",
    "drafter": "speculation.drafter",
    "compressor": "speculation.compressor",
    "batch_size": "scheduling.max_running",
    "placement": "placement.kind",
    "lanes": "placement.num_lanes",
    "encoders": "placement.num_encoders",
    "host": "serving.host",
    "http_port": "serving.http_port",
    "grpc_port": "serving.grpc_port",
    "keys_file": "serving.keys_file",
    "tls_certificate": "serving.tls_certificate",
    "tls_key": "serving.tls_key",
    "tls_client_ca": "serving.tls_client_ca",
}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The parser knows which target and drafter to load."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", metavar="NAME", help="hub id, local directory, or 'demo', the bundled model (default)"
    )
    group.add_argument(
        "--drafter", metavar="NAME", help="auto, none, lookup, a trained kind, or a checkpoint directory"
    )
    group.add_argument("--compressor", metavar="NAME", help="of visual tokens, for the drafter (default: as trained)")
    group.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), help="of the weights (default: auto)")
    group.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 ...")
    group.add_argument(
        "--set",
        dest="assignments",
        metavar="SECTION.NAME=VALUE",
        action="append",
        default=[],
        help="any setting of the configuration; may be repeated",
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """The parser knows how tokens are chosen and where an answer ends."""
    default = SamplingParams()
    group = parser.add_argument_group("answer")
    group.add_argument(
        "--max-new-tokens",
        metavar="N",
        type=positive_int,
        default=default.max_new_tokens,
        help=f"longest answer (default: {default.max_new_tokens})",
    )
    group.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0: greedy (default)")
    group.add_argument("--top-p", metavar="P", type=float, default=1.0, help="keep the likeliest tokens with this mass")
    group.add_argument("--top-k", metavar="K", type=count_int, default=0, help="keep the K likeliest tokens; 0: all")
    group.add_argument("--seed", metavar="N", type=int, default=0, help="same seed, same text, whatever drafts")
    group.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="end before this text; may be repeated"
    )
    group.add_argument("--ignore-eos", action="store_true", help="go on to --max-new-tokens whatever the model says")
    group.add_argument(
        "--draft-length",
        metavar="K",
        type=count_int,
        help="tokens drafted per round; 0: plain decoding (default: adaptive)",
    )


def config_of(arguments: argparse.Namespace) -> Config:
    """The configuration that the command line asks for.

    Raises:
        ConfigError: a setting is unknown or its value is not allowed.
    """
    values = ((path, getattr(arguments, option, None)) for option, path in SHORTHANDS.items())
    shorthands = [f"{path}={value}" for path, value in values if value is not None]
    return with_overrides(_file_of(arguments), [*arguments.assignments, *shorthands])


def _file_of(arguments: argparse.Namespace) -> Config:
    path = getattr(arguments, "config", None)
    if path is None:
        return Config()
    import yaml

    try:
        settings = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read settings from {path}: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold sections of settings")
    return from_mapping(settings)


def sampling_of(arguments: argparse.Namespace) -> SamplingParams:
    """The sampling parameters that the command line asks for.

    Raises:
        InvalidRequestError: a parameter lies outside its range.
    """
    return SamplingParams(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_new_tokens,
        seed=arguments.seed,
        stop=tuple(arguments.stop),
        ignore_eos=arguments.ignore_eos,
    )
