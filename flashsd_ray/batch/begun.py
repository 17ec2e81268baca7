"""What an output directory was begun with: a run with other settings would mix captions of two kinds."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flashsd_ray.batch.job import Job
from flashsd_ray.batch.rows import SCHEMA_VERSION
from flashsd_ray.batch.storage import Location
from flashsd_ray.errors import ConfigError

FILE = "run.json"


def settings_of(job: Job, input_fingerprint: str, formats: tuple[str, ...]) -> dict[str, Any]:
    """Everything that must be the same when a run is resumed."""
    return {
        "schema_version": SCHEMA_VERSION,
        "input": input_fingerprint,
        "formats": sorted(formats),
        **json.loads(json.dumps(job.identity())),
    }


def begin(directory: str, settings: dict[str, Any], *, force: bool = False) -> None:
    """The directory holds the settings; it is new, or was begun with the same, or with others and ``force``.

    Raises:
        ConfigError: it was begun with other settings.
        StorageError: it cannot be read or written.
    """
    place = Location.at(directory).child(FILE)
    if place.size_bytes() is not None:
        differing = _differing(_read(place), settings)
        if not differing:
            return
        if not force:
            raise ConfigError(
                f"{directory} was begun with other {', '.join(differing)}; name another --output, "
                f"or go on with --force, which keeps what is there"
            )
    place.write((json.dumps(settings, indent=1, sort_keys=True) + "\n").encode())


def corpus_id(directory: str, settings: dict[str, Any]) -> str:
    """Equal for drivers that fill the same output together."""
    named = json.dumps([directory.rstrip("/"), settings], sort_keys=True)
    return hashlib.blake2b(named.encode(), digest_size=8).hexdigest()


def _read(place: Location) -> dict[str, Any]:
    try:
        settings = json.loads(place.read())
    except ValueError as error:
        raise ConfigError(f"{place.address}: is damaged: {error}") from error
    return settings if isinstance(settings, dict) else {}


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
