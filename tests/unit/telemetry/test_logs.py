"""Log lines: one a record, each with its request, in text or JSON; a client cannot forge one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import TelemetryConfig
from flashsd_ray.telemetry.logs import about, fields, log_as

log = logging.getLogger("flashsd_ray.somewhere")
TEXT = TelemetryConfig()
JSON = TelemetryConfig(log_format="json")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(capsys)]


def test_text_says_when_how_bad_who_about_what(capsys: pytest.CaptureFixture[str]) -> None:
    log_as(TEXT, "http")
    with about("req-7"):
        log.warning("lane %s is lost", "lane-0", extra=fields(tokens=3))
    log.info("ready")
    first, second = lines(capsys)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING http req-7 lane lane-0 is lost tokens=3", first
    )
    assert second.endswith("Z INFO    http - ready")


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_as(JSON, "lane-1")
    with about("req\n7"):
        log.error("two\nlines", extra=fields(tau=2.5, pid="forged"))
    (line,) = objects(capsys)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "error",
        "role": "lane-1",
        "pid": os.getpid(),
        "request_id": "req\n7",
        "message": "two\nlines",
        "tau": 2.5,
    }


def test_exceptions_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for config in (TEXT, JSON):
        log_as(config, "lane")
        try:
            raise ValueError("deep\ninside")
        except ValueError:
            log.exception("a round failed")
    told = capsys.readouterr().err
    *text, last = told.splitlines()
    assert text[0].endswith("a round failed")
    assert all(line.startswith("    ") for line in text[1:])
    assert "ValueError: deep" in "\n".join(text)
    assert "ValueError: deep\ninside" in json.loads(last)["exception"]


def test_only_the_last_call_counts(capsys: pytest.CaptureFixture[str], logger: logging.Logger) -> None:
    logger.addHandler(logging.StreamHandler())  # as the command line has one for its own warnings
    for role in ("first", "second", "third"):
        log_as(TEXT, role)
    log.info("once")
    (line,) = lines(capsys)
    assert " third " in line


@pytest.mark.parametrize(("level", "told"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_less_severe_lines_are_left_out(level: Any, told: int, capsys: pytest.CaptureFixture[str]) -> None:
    log_as(TelemetryConfig(log_level=level), "http")
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert len(lines(capsys)) == told


@given(text=st.text())
def test_no_text_of_a_client_ends_a_line(text: str) -> None:
    record = logging.LogRecord("flashsd_ray", logging.INFO, "", 0, "%s", (text,), None)
    for config in (TEXT, JSON):
        log_as(config, "http")
        formatter = next(one.formatter for one in logging.getLogger("flashsd_ray").handlers if one.formatter)
        with about(text):
            shown = formatter.format(record)
        assert len(shown.splitlines()) == 1
        assert "\x1b" not in shown


async def test_requests_beside_each_other_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    log_as(JSON, "http")
    inside = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def work(request_id: str, other: str) -> None:
        with about(request_id):
            inside[request_id].set()
            await inside[other].wait()
            await asyncio.create_task(later(request_id))

    async def later(message: str) -> None:
        log.info(message)

    await asyncio.gather(work("a", "b"), work("b", "a"))
    assert sorted((line["request_id"], line["message"]) for line in objects(capsys)) == [("a", "a"), ("b", "b")]


async def test_a_generator_may_be_closed_from_elsewhere() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        with about("req-1"):
            yield 1

    opened = numbers()
    await asyncio.create_task(anext(opened))  # type: ignore[arg-type]
    await asyncio.create_task(opened.aclose())  # another context than the one that went in


def test_about_may_be_nested(capsys: pytest.CaptureFixture[str]) -> None:
    log_as(JSON, "http")
    with about("outer"):
        with about("inner"):
            log.info("")
        log.info("")
    log.info("")
    assert [line["request_id"] for line in objects(capsys)] == ["inner", "outer", ""]
