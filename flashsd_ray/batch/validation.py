"""Captions that shall be JSON, held against a schema."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from flashsd_ray.errors import ConfigError, InvalidRequestError

LONGEST_REASON = 300  # characters: a validator repeats what it found


class SchemaError(InvalidRequestError):
    """A caption is not JSON, or not as the schema wants it."""


def check_schema(text: str) -> None:
    """Raises ConfigError when the text is no JSON schema."""
    _validator(text)


def check_caption(caption: str, schema: str) -> None:
    """Raises SchemaError when the caption is not JSON that fits the schema."""
    try:
        value = json.loads(caption)
    except ValueError as error:
        raise SchemaError(f"the caption is not JSON: {error}") from error
    problem = next(iter(_validator(schema).iter_errors(value)), None)
    if problem is not None:
        reason = " ".join(str(problem.message).split())[:LONGEST_REASON]
        raise SchemaError(f"the caption does not fit the schema: {problem.json_path}: {reason}")


@lru_cache(maxsize=8)
def _validator(text: str) -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise ConfigError("a JSON schema needs jsonschema; pip install 'flashsd_ray[batch]'") from error
    try:
        schema = json.loads(text)
        kind = jsonschema.validators.validator_for(schema)
        kind.check_schema(schema)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"the JSON schema is not JSON: {error}") from error
    except jsonschema.SchemaError as error:
        raise ConfigError(f"this is no JSON schema: {error.message}") from error
    return kind(schema)
