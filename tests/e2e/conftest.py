"""The command line in this process, with engines that are loaded once, and as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

from flashsd_ray.cli import loading
from flashsd_ray.cli.main import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on standard error."""
        return self.err.splitlines()


Command = Callable[..., Outcome]

# An engine serves one request after the other, so commands may share it.
_load_once = lru_cache(maxsize=8)(loading.load_engine)


@pytest.fixture
def flashsd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process."""
    monkeypatch.setattr(loading, "load_engine", _load_once)
    monkeypatch.setattr(loading, "quiet_libraries", lambda: None)

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def environment() -> dict[str, str]:
    """What a process of the command runs in."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def heed_interrupts() -> None:
    """The process takes an interrupt as a terminal's would."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*words: str | Path, **options: object) -> subprocess.Popen[str]:
    """The command, running."""
    command = [sys.executable, "-m", "flashsd_ray", *(str(word) for word in words)]
    # Whoever started the tests in the background had interrupts ignored, which a command would inherit.
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed_interrupts, **options}
    return subprocess.Popen(command, env=environment(), text=True, **streams)  # type: ignore[call-overload, no-any-return]


def run_process(*words: str | Path) -> Outcome:
    """The command has run in a process of its own."""
    process = start(*words)
    out, err = process.communicate(timeout=150)
    return Outcome(process.returncode, out, err)
