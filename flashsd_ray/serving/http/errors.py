"""Errors as OpenAI's clients know them: ``{"error": {"message", "type", "param", "code"}}`` with a status."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flashsd_ray.errors import FlashSDError, InvalidRequestError, OverloadedError, UnavailableError

_INTERNAL = "internal error; the server's log has it under the request id"

# By status: the type and the code, unless the error brings its own code.
_KINDS: dict[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "address_refused"),
    404: ("not_found_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    422: ("invalid_request_error", None),
    429: ("rate_limit_error", "overloaded"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "unavailable"),
    504: ("timeout_error", "deadline_exceeded"),
}


class FieldError(InvalidRequestError):
    """One field of a request cannot be served; ``status`` says whether its value, its size or its kind is the reason."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status


class PartError(FlashSDError):
    """An error that one part of a request is to blame for."""

    def __init__(self, cause: FlashSDError, param: str) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """What a client is told about an error."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def described(error: FlashSDError) -> ErrorAnswer:
    """The status, the body and the headers that tell a client about the error; of internal ones nothing but that."""
    param = error.param if isinstance(error, PartError) else None
    error = error.cause if isinstance(error, PartError) else error
    code = None
    status = error.http_status
    if isinstance(error, FieldError):
        param, code, status = param or error.param, error.code, error.status
    headers = {}
    if isinstance(error, OverloadedError | UnavailableError):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return answer(status, _INTERNAL if status == 500 else str(error), param=param, code=code, headers=headers)


def answer(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> ErrorAnswer:
    """The answer with this status and message."""
    kind, usual_code = _KINDS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    body = {"error": {"message": message, "type": kind, "param": param, "code": code or usual_code}}
    return ErrorAnswer(status=status, body=body, headers=headers or {})


def internal() -> ErrorAnswer:
    """What a client is told about a fault of this program: nothing but where its operator finds it."""
    return answer(500, _INTERNAL)


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
