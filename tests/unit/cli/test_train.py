"""``flashsd train drafter``: what its options mean, what it says while it runs, and how it ends."""

from __future__ import annotations

import builtins
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flashsd_ray.cli import live_bar, loading
from flashsd_ray.cli.main import build_parser, main
from flashsd_ray.cli.parsing import UsageError
from flashsd_ray.cli.train import spelled
from flashsd_ray.cli.train_options import job_of, workers_of
from flashsd_ray.cli.train_progress import Progress
from flashsd_ray.errors import ConfigError
from flashsd_ray.training.drafter.events import Asked, Judged, Learnt, LeftOut, Read
from flashsd_ray.training.drafter.job import Job
from flashsd_ray.training.drafter.losses import FLASH_PAPER
from flashsd_ray.training.drafter.trainer import TrainingConfig
from tests.tiny_checkpoints import checkpoint

LEAST = ["train", "drafter", "--data", "town:8", "--out", "runs/x"]


def parsed(*words: str) -> Any:
    return build_parser().parse_args([*LEAST, *words])


def job(*words: str) -> Job:
    return job_of(parsed(*words), "")


def test_the_defaults_are_those_of_training() -> None:
    usual = job()
    assert usual.training == TrainingConfig(steps=1000)
    defaults = Job(out=Path("runs/x"), data="town:8", training=usual.training)
    assert usual == defaults
    assert job("--minutes", "3").training == TrainingConfig(minutes=3.0)


def test_options_reach_what_they_name() -> None:
    asked = job(
        *shlex.split(
            "--target owner/name --dtype float32 --frames 4 --batch-size 7 --set scheduling.cache_rows=99 --prompt a "
            "--prompt b --taps 3,6 --layers 2 --width 64 --latents 8 --source vision --fresh 0 --loss paper "
            "--learning-rate 0.1 --seed 5 --memory-gib 0.5 --check 0 --answers runs/answers --keep-readings"
        )
    )
    config = asked.config
    assert (config.model.name, config.model.dtype, config.media.num_frames) == ("owner/name", "float32", 4)
    assert (config.scheduling.max_running, config.scheduling.cache_rows) == (7, 99)
    assert asked.prompts == ("a", "b")
    assert asked.design.sizes == {"tap_layers": (3, 6), "num_layers": 2, "source": "vision"}
    assert (asked.design.width, asked.design.num_latents) == (64, 8)
    assert (asked.training.weights, asked.training.early, asked.training.seed) == (FLASH_PAPER, 1.0, 5)
    assert (asked.training.num_fresh, asked.learning_rate, asked.num_checked) == (0, 0.1, 0)
    assert (asked.memory_bytes, asked.store, asked.keeps_readings) == (2**29, Path("runs/answers"), True)
    workers = workers_of(parsed("--workers", "4", "--worker-gpus", "1", "--restarts", "2", "--address", "auto"))
    assert (workers.count, workers.cpus, workers.gpus, workers.restarts, workers.address) == (4, 1.0, 1, 2, "auto")


def test_the_command_is_kept_as_it_can_be_given_again() -> None:
    words = ["--prompt", "What's this?", "--prompt", "b", "--taps", "3,6", "--minutes", "2.0", "--only-answers"]
    command = spelled(parsed(*words, "--resume", "--seed", "0"))
    assert command.startswith("flashsd train drafter --data town:8")
    assert not {"--resume", "--seed", "--help"} & set(command.split())
    assert job_of(build_parser().parse_args(shlex.split(command)[1:]), "") == job(*words)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("train", "WHAT"),
        ("train drafter --out x", "--data"),
        ("train drafter --data town:1 --out x --taps a,b", "--taps: must be layers such as 3,6,9, got 'a,b'"),
        ("train drafter --data town:1 --out x --sampled-share 2", "must be a share from 0 to 1, got 2"),
        ("train drafter --data town:1 --out x --hard nan", "must be a number, 0 or more, got nan"),
        ("train drafter --data town:1 --out x --step 3", "did you mean --steps?"),
    ],
)
def test_mistakes_are_named(words: str, part: str) -> None:
    with pytest.raises(UsageError) as raised:
        build_parser().parse_args(words.split())
    assert part in str(raised.value)


@pytest.fixture
def flashsd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command here; returns exit code, standard output and the last line of standard error."""
    monkeypatch.setattr(loading, "quiet_libraries", lambda: None)

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--resume", "--overwrite"), "exclude each other"),
        (("--address", "auto"), "say with --workers how many"),
        (("--heldout", "3", "--heldout-data", "town:3"), "leave --heldout out"),
        (("--target", "dmo"), "did you mean 'demo'?"),
        (("--kind", "lookup"), "known: ar, block, flash"),
        (("--compressor", "zip"), "unknown compressor 'zip'"),
        (("--set", "media.frames=2"), "unknown setting 'media.frames'"),
        (("--data", "missing.jsonl"), "cannot read missing.jsonl"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    words: tuple[str, ...], part: str, flashsd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = flashsd(*LEAST, *words)
    assert (code, out) == (2, "")
    assert part in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("flashsd: error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_drafter_comes_out_and_is_kept(flashsd: Any, tmp_path: Path, clips: list[Path]) -> None:
    lines = [{"path": str(path), "prompts": ["What happens?", "Where?"], "end": 1.0} for path in clips[:3]]
    lines += [{"prompt": f"Say {number}."} for number in range(4)] + [{"prompt": "What?", "path": "missing.png"}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [
        *("train", "drafter", "--target", checkpoint("llava15"), "--dtype", "float32", "--frames", "2"),
        *("--data", tmp_path / "data.jsonl", "--heldout", "3", "--max-new-tokens", "10", "--steps", "10"),
        *("--readings", "2", "--anchors", "2", "--check", "1", "--threads", "1", "--out", tmp_path / "out"),
    ]
    code, out, err = flashsd(*words)
    assert code == 0, err
    assert "8 questions to learn from, 3 held out" in err or "7 questions to learn from, 3 held out" in err
    assert "left out: " in err
    assert "missing.png: does not exist" in err
    assert "step 10, " in err
    assert f"--drafter {tmp_path / 'out'}" in out
    assert "(1 questions left out)" in out
    assert str(tmp_path) in json.loads((tmp_path / "out" / "config.json").read_text())["provenance"]["command"]
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns

    code, out, err = flashsd(*words)
    assert code == 2
    assert "holds a trained drafter" in err
    code, out, err = flashsd(*words, "--resume")
    assert (code, out) == (0, f"{tmp_path / 'out'} holds a finished drafter already\n")
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before


def test_a_library_that_is_not_installed_is_named(
    flashsd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_ray(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith(("ray", "flashsd_ray.training.drafter.workers")):
            raise ModuleNotFoundError("no ray", name="ray")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    code, _, err = flashsd("train", "drafter", "--data", "town:2", "--workers", "2", "--out", tmp_path / "x")
    assert code == 2
    assert "--workers needs Ray Train: pip install 'ray[train]'" in err


EVENTS = (
    Asked(done=1, total=4, tokens=30, seconds=2.0),
    LeftOut(origin="data.jsonl, line 3", reason="a\x1b.png: does not exist"),
    Asked(done=4, total=4, tokens=60, seconds=4.0),
    Read(done=3, total=3, num_bytes=2**21),
    Learnt(step=5, progress=0.25, spent_s=60.0, loss=2.5, hard=3.0, overlap=0.4, slots=(0.5, 0.25), learning_rate=1e-3),
    Judged(
        step=20,
        progress=1.0,
        spent_s=240.0,
        quality={"num_greedy": 2, "greedy_tau": 2.5, "greedy_slots": [0.75, 0.5], "num_sampled": 0},
    ),
    Learnt(step=20, progress=1.0, spent_s=240.0, loss=1, hard=1, overlap=0.5, slots=(0.5,), learning_rate=1e-3),
)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_is_told_on_a_terminal_and_off_it(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    shown = Console(file=written, force_terminal=is_terminal, width=200, highlight=False, markup=False)
    monkeypatch.setattr(live_bar, "console", lambda stream: shown)
    with Progress() as progress:
        progress.has_found(4, 2)
        for event in EVENTS:
            progress(event)
            if is_terminal:
                progress._bar.refresh()
    text = written.getvalue()
    assert "4 questions to learn from, 2 held out" in text
    assert "left out: data.jsonl, line 3: a\ufffd.png: does not exist" in text
    assert "4 of 4 answers, 15 tokens/s" in text
    assert "step 20, 240 s: held-out greedy tau 2.50, slot by slot 0.75 0.50" in text
    assert ("step 5, loss 2.500, overlap 0.40, slots 0.50 0.25, 3 min left" in text) == is_terminal
    assert "slots 0.50, held-out tau 2.50" in text
    assert "(1 questions left out)" in progress.summary(job())


def test_an_interrupted_training_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Progress():
        raise KeyboardInterrupt
    assert "--resume goes on" in capsys.readouterr().err


def test_a_wrong_kind_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError):
        job("--kind", "none")
