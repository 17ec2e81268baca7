"""What only a process of its own shows: start-up, silence of libraries, interruption, closed pipes, the doctor."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.conftest import ROOT, environment, run_process, start


def test_help_and_mistakes_do_not_wait_for_torch() -> None:
    program = (
        "import sys\n"
        "from flashsd_ray.cli.main import main\n"
        "codes = [main(['caption', 'a.mp4', '--frames', '0']), main(['captoin'])]\n"
        "try:\n    main(['caption', '--help'])\nexcept SystemExit as end:\n    codes.append(end.code)\n"
        "heavy = {'torch', 'transformers', 'av', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert codes == [2, 2, 0] and not heavy, (codes, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--show-drafts" in done.stdout


def test_a_caption_is_all_that_is_written(clip: Path) -> None:
    outcome = run_process("caption", clip, "--max-new-tokens", "8")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert len(outcome.out.splitlines()) == 1


def test_a_missing_file_is_found_before_a_model_is_loaded() -> None:
    outcome = run_process("caption", "no-such-clip.mp4", "--model", "./no-such-model")
    assert outcome.code == 2
    assert outcome.err == "flashsd: error: no-such-clip.mp4: does not exist\n"


def test_an_interrupted_command_ends_quietly(clip: Path) -> None:
    with start("caption", *[clip] * 200, "--max-new-tokens", "64", "--ignore-eos") as process:
        assert process.stdout is not None
        process.stdout.readline()  # one caption is there, many are to come
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_closed_pipe_ends_the_command_quietly(clip: Path) -> None:
    with start("caption", *[clip] * 200, "--max-new-tokens", "16", "--format", "json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


def test_the_doctor_finds_this_installation_healthy() -> None:
    outcome = run_process("doctor", "--json")
    described = json.loads(outcome.out)
    found = {check["name"]: check for check in described["checks"]}
    assert described["is_healthy"] is True, outcome.out
    assert outcome.code == 0
    assert "torch" in found["libraries"]["detail"]
    assert "h264" in found["video codecs"]["detail"]
    assert "output identical: yes" in found["equality in float32"]["detail"]


def test_the_doctor_names_what_is_broken() -> None:
    outcome = run_process("doctor", "--model", "dmo")
    assert outcome.code == 1
    assert "FAIL" in outcome.out
    assert "unknown model 'dmo'" in outcome.out
    assert outcome.err == ""


def test_on_a_terminal_drafts_are_coloured_and_progress_is_shown(clip: Path) -> None:
    parent, child = pty.openpty()
    words = ("caption", clip, "--show-drafts", "--drafter", "lookup", "--max-new-tokens", "40", "--ignore-eos")
    with start(*words, stdout=child, stderr=child, stdin=child) as process:
        os.close(child)
        shown = _read_all(parent)
        assert process.wait(timeout=60) == 0
    assert "reading" in shown
    assert "loading demo" in shown
    assert "\x1b[33m" in shown  # the target's own tokens
    assert "tokens/s" in shown


def _read_all(terminal: int) -> str:
    content, end_s = b"", time.monotonic() + 120
    while time.monotonic() < end_s:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not piece:
            break
        content += piece
    return content.decode("utf-8", errors="replace")


def test_the_package_is_a_program() -> None:
    outcome = run_process("--version")
    assert (outcome.code, outcome.out.split()[0]) == (0, "flashsd")
    assert (ROOT / "pyproject.toml").exists()
