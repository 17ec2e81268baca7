"""``flashsd serve``: the whole pipeline behind HTTP and gRPC, until it is interrupted."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from flashsd_ray.cli.loading import check_model_name
from flashsd_ray.cli.parsing import count_int, positive_int
from flashsd_ray.cli.settings import add_model_options, config_of
from flashsd_ray.config import ModelConfig
from flashsd_ray.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from flashsd_ray.config import Config
    from flashsd_ray.serving.running import Running

HELP = "serve the model over HTTP (as OpenAI's clients speak it) and gRPC (with live video)"
KEY_VARIABLE = "FLASHSD_API_KEY"


def add_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser("serve", help=HELP, description=HELP.capitalize() + ".")
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; options and --set win over it")
    group = parser.add_argument_group("pipeline")
    group.add_argument(
        "--placement",
        choices=("local", "colocated", "dedicated"),
        help="local: this process, no Ray; colocated (default): lanes and encoders are Ray actors; dedicated: drafters too",
    )
    group.add_argument("--lanes", metavar="N", type=positive_int, help="targets that decode side by side (default: 1)")
    group.add_argument("--encoders", metavar="N", type=positive_int, help="vision towers (default: 1)")
    group.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster to run on (default: a Ray of our own)")
    group = parser.add_argument_group("edges")
    group.add_argument("--host", metavar="HOST", help="address to listen on (default: 127.0.0.1)")
    group.add_argument("--http-port", metavar="PORT", type=count_int, help="default: 8000; 0: any free one")
    group.add_argument("--grpc-port", metavar="PORT", type=count_int, help="default: 9000; 0: any free one")
    group.add_argument("--keys-file", metavar="FILE", help="API keys, one `name:key` a line (default: no keys)")
    group.add_argument("--tls-certificate", metavar="FILE", help="PEM; with --tls-key switches TLS on")
    group.add_argument("--tls-key", metavar="FILE", help="PEM of the private key")
    group.add_argument("--tls-client-ca", metavar="FILE", help="PEM; clients must show a certificate signed by it")
    add_model_options(parser)
    parser.set_defaults(run=run, batch_size=None)


def run(arguments: argparse.Namespace) -> int:
    """The server ran until it was interrupted or terminated.

    Raises:
        ConfigError: a setting is wrong, a port is taken, or a package for serving is missing.
        CheckpointError: the model cannot be loaded.
    """
    from flashsd_ray.cli.terminal import Activity

    config = config_of(arguments)
    if config.placement.kind == "local" and arguments.address:
        raise ConfigError("--address names a Ray cluster, and --placement local uses none")
    began_s = perf_counter()
    activity = Activity()
    try:
        with start(config, arguments.address, activity.says) as running, _until_told() as stopped:
            # Only now: Ray sets handlers of its own when it starts.
            activity.rests()
            announce(running, config, perf_counter() - began_s)
            stopped.wait()
            activity.says("finishing what is open")
    finally:
        activity.rests()
    return 0


def announce(running: Running, config: Config, seconds: float) -> None:
    """What can be done now is on standard output, for people and for scripts that wait for it."""
    key = os.environ.get(KEY_VARIABLE, "")
    note = f" (with a key of {config.serving.keys_file})" if config.serving.keys_file and not key else ""
    print(f"ready after {seconds:.1f} s: {config.model.name}, placement {config.placement.kind}", flush=True)
    print(f"  HTTP  {running.http_url}{note}", flush=True)
    print(f"  gRPC  {running.grpc_address}", flush=True)
    print(f"  try   flashsd stream clip.mp4 --server {running.grpc_address} --every 2", flush=True)
    print("  stop  Ctrl-C", flush=True)


def start(config: Config, address: str | None, says: Callable[[str], None]) -> AbstractContextManager[Running]:
    """A server of the placement that the config names, for as long as the block lasts.

    Raises:
        ConfigError: a package for serving is missing.
        CheckpointError: there can be no model of this name.
    """
    try:
        if config.placement.kind == "local":
            from flashsd_ray.serving.local import running as running_here

            return running_here(config, says=says)
        from flashsd_ray.serving.application.run import running as running_on_ray

        if address is None:  # elsewhere there may be directories that are not here
            check_model_name(config.model.name, [ModelConfig().name])
        return running_on_ray(config, address=address, says=says)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("flashsd_ray"):
            raise
        raise ConfigError(f"serving needs the package {error.name!r}: pip install 'flashsd_ray[serve]'") from error


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second one of them interrupts as usual."""
    told = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def tell(number: int, _frame: object) -> None:
        told.set()
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, tell)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
