"""Request bodies: read up to a limit, parsed once, and refused by the name of the first field that is wrong."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import pydantic
import pydantic_core
from starlette.requests import Request

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.media.source import printable
from flashsd_ray.serving.http.errors import FieldError
from flashsd_ray.serving.http.fields import Fields, RequestFields
from flashsd_ray.serving.http.room import Share

F = TypeVar("F", bound=RequestFields)


async def read_fields(request: Request, kind: type[F], config: ServingConfig, share: Share) -> F:
    """The fields of the body; the share is charged with its size.

    Raises:
        FieldError: the body is no JSON, too large, or holds something that is not supported.
        OverloadedError: there is no room for it now.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise FieldError("the content-type must be application/json", param="content-type", status=415)
    return parsed(await _read(request, config, share), kind, config)


async def _read(request: Request, config: ServingConfig, share: Share) -> bytes:
    too_large = FieldError(f"the body is larger than serving.max_body_bytes ({config.max_body_bytes})", status=413)
    announced = request.headers.get("content-length", "")
    # A body that announces its length is refused before it was sent.
    if announced.isdecimal() and int(announced[:20]) > config.max_body_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > config.max_body_bytes:
            raise too_large
        share.take(len(chunk))
        body += chunk
    return bytes(body)


def parsed(body: bytes, kind: type[F], config: ServingConfig) -> F:
    """The fields that the JSON text holds.

    Raises:
        FieldError: see ``read_fields``.
    """
    # Millions of tiny values would need many times the memory of their text.
    num_values = sum(map(body.count, (b",", b"[", b"{")))
    if num_values > config.max_json_values:
        raise FieldError(
            f"the body has {num_values} commas and brackets, serving.max_json_values allows {config.max_json_values}",
            status=413,
        )
    try:
        data = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise FieldError(f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise FieldError("the body must be a JSON object")
    try:
        return kind.model_validate(data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _refusal(first["type"], _path(first["loc"]), first["msg"], kind) from None
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply") from None


def _refusal(problem: str, path: str, message: str, kind: type[Fields]) -> FieldError:
    if problem == "extra_forbidden":
        accepted = kind.without_effect.get(path)
        if accepted is None:
            return FieldError(f"{path} is not known here", param=path, code="unknown_parameter")
        harmless = " or ".join(json.dumps(value) for value in accepted)
        message = f"{path} is not supported; leave it out, or send {harmless}"
        return FieldError(message, param=path, code="unsupported_parameter")
    if problem == "missing":
        return FieldError(f"{path} is missing", param=path, code="missing_required_parameter")
    return FieldError(f"{path}: {message.removeprefix('Value error, ')}", param=path, code="invalid_value")


def _path(loc: tuple[Any, ...]) -> str:
    path = ""
    for index, step in enumerate(loc):
        if index >= 2 and loc[index - 2] == "content" and isinstance(loc[index - 1], int):
            continue  # the kind of a part, which is no step in the body
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return printable(path.removeprefix("."))
