"""A whole training as the command line runs it: what it leaves behind, what it refuses, and how it goes on."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from flashsd_ray.config import Config, MediaConfig, ModelConfig, SchedulingConfig
from flashsd_ray.engine.local import view_of
from flashsd_ray.errors import CheckpointError, ConfigError
from flashsd_ray.models.drafters import load_drafter
from flashsd_ray.models.drafters.build import build_network
from flashsd_ray.models.drafters.checkpoint import describe
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter import run as run_module
from flashsd_ray.training.drafter.events import Event, Journal, Judged, Learnt, LeftOut, journal_file, read_event
from flashsd_ray.training.drafter.figure import draw
from flashsd_ray.training.drafter.job import Design, Job, make_room
from flashsd_ray.training.drafter.readings import Reader
from flashsd_ray.training.drafter.run import data_of, train
from flashsd_ray.training.drafter.state import is_finished, is_unfinished, load_state, save_state
from flashsd_ray.training.drafter.trainer import Trainer, TrainingConfig
from tests.tiny_checkpoints import checkpoint
from tests.tiny_drafting import tiny_view

STEPS = 12


def job_in(folder: Path) -> Job:
    return Job(
        out=folder,
        data="town:6",
        num_heldout=3,
        sampled_share=0.4,
        keeps_readings=True,
        config=Config(
            model=ModelConfig(name=str(checkpoint("llava15")), dtype="float32"),
            media=MediaConfig(num_frames=2),
            scheduling=SchedulingConfig(max_running=4, cache_rows=2048),
        ),
        design=Design(compressor="pool", sizes={"draft_length": 3}),
        training=TrainingConfig(steps=STEPS, num_readings=2, num_anchors=4, seed=3, evaluate_every_s=1e-9),
        max_new_tokens=12,
        num_checked=2,
        command="flashsd train drafter --data town:6",
    )


def trained(job: Job, *, goes_on: bool = False) -> list[Event]:
    """What a training of the job told."""
    heard: list[Event] = []
    journal = Journal(job.out / journal_file(0), goes_on=goes_on)

    def listen(event: Event) -> None:
        heard.append(event)
        journal(event)

    try:
        train(job, data_of(job), listen)
    finally:
        journal.close()
    return heard


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return job_in(tmp_path_factory.mktemp("drafter"))


@pytest.fixture(scope="module")
def events(job: Job) -> list[Event]:
    return trained(job)


def test_a_trained_drafter_has_its_papers(job: Job, events: list[Event], target: PretrainedTarget) -> None:
    assert is_finished(job.out)
    load_drafter(str(job.out), view_of(target))
    made = describe(job.out)["provenance"]
    assert made["command"] == job.command
    assert (made["steps"], made["training"]["seed"], made["num_left_out"]) == (STEPS, 3, 0)
    assert made["training"]["learning_rate"] == TrainingConfig().learning_rate
    assert [checked["drafter"] for checked in made["engine"]] == ["block", "lookup"]
    assert all(checked["num_equal"] == checked["num_answers"] > 0 for checked in made["engine"])
    card = (job.out / "README.md").read_text()
    for part in (target.fingerprint, job.command, "town:6", "12 steps", "hard 0.5", "`lookup`", "seed | 0.0006, 3"):
        assert part in card


def test_the_journal_tells_of_every_slot_while_it_learns(job: Job, events: list[Event]) -> None:
    with (job.out / journal_file(0)).open() as lines:
        told = [read_event(line) for line in lines]
    assert [type(event) for event in told] == [type(event) for event in events]
    judged = [event for event in told if isinstance(event, Judged)]
    learnt = [event for event in told if isinstance(event, Learnt)]
    assert [event.step for event in judged] == list(range(1, STEPS + 1))
    assert all(len(event.quality["greedy_slots"]) == 3 for event in judged)
    assert [event.step for event in learnt] == [10, STEPS]
    assert all(len(event.slots) == 3 for event in learnt)
    assert describe(job.out)["provenance"]["quality"] == judged[-1].quality


def test_a_drafter_is_refused_by_another_target(job: Job, events: list[Event], target: PretrainedTarget) -> None:
    with pytest.raises(CheckpointError) as raised:
        load_drafter(str(job.out), tiny_view())
    assert target.fingerprint in str(raised.value)
    assert "this target is tiny-4-0" in str(raised.value)


def test_what_is_there_is_not_lost(job: Job, events: list[Event], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a trained drafter; name another --out, or say --overwrite"):
        make_room(job, resumes=False, overwrites=False)
    assert not make_room(job, resumes=True, overwrites=False)
    assert make_room(job, resumes=False, overwrites=True)
    assert make_room(replace(job, only_answers=True), resumes=False, overwrites=False)
    assert make_room(replace(job, out=tmp_path), resumes=True, overwrites=False)


def test_a_killed_training_goes_on_and_reads_nothing_anew(
    job: Job, events: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = replace(job, out=tmp_path, answers=job.out, num_checked=0)
    learn = Trainer.learn

    class KilledError(Exception):
        pass

    def learn_until_killed(self: Trainer) -> object:
        if self.step == 7:
            raise KilledError
        return learn(self)

    def refuse(*arguments: object) -> None:
        raise AssertionError("an answer was read anew")

    monkeypatch.setattr(Reader, "read", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "learn", learn_until_killed)
        with pytest.raises(KilledError):
            trained(again)
    assert is_unfinished(tmp_path)
    with pytest.raises(ConfigError, match="go on with --resume, or begin anew with --overwrite"):
        make_room(again, resumes=False, overwrites=False)
    assert make_room(again, resumes=True, overwrites=False)
    with pytest.raises(ConfigError, match="training with seed 3, now it is 4"):
        trained(replace(again, training=replace(job.training, seed=4)), goes_on=True)
    told = trained(again, goes_on=True)
    assert [event.step for event in told if isinstance(event, Judged)] == list(range(8, STEPS + 1))
    assert is_finished(tmp_path)
    assert describe(tmp_path)["provenance"]["quality"] == describe(job.out)["provenance"]["quality"]
    assert (tmp_path / "model.safetensors").read_bytes() == (job.out / "model.safetensors").read_bytes()


def test_asking_can_be_all(job: Job, tmp_path: Path) -> None:
    told = trained(replace(job, out=tmp_path, only_answers=True))
    assert told
    assert [path.name for path in tmp_path.glob("answers-*")] == [
        f"answers-{describe(job.out)['target']['fingerprint']}.jsonl"
    ]
    assert not is_finished(tmp_path)
    assert not is_unfinished(tmp_path)


def test_given_answers_are_learnt_from_but_judged_by_the_targets_own(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(f'{{"prompt": "Question {n}?", "answer": "It is number {n}."}}\n' for n in range(8)))
    told = trained(replace(job, out=tmp_path / "out", data=str(path), num_heldout=2))
    (asked, *_) = [event for event in told if not isinstance(event, (LeftOut, Learnt, Judged))]
    assert asked.done == 2
    quality = describe(tmp_path / "out")["provenance"]["quality"]
    assert quality["num_greedy"] + quality["num_sampled"] == 2


def test_designs_fit_their_target_or_are_refused() -> None:
    view = tiny_view()
    narrow = Design(width=16, num_latents=2, sizes={"draft_length": 5, "tap_layers": (1, 2)}).config(view)
    assert (narrow.width, narrow.hidden_size, narrow.compressor.num_latents) == (16, 32, 2)
    assert (narrow.draft_length, narrow.tap_layers) == (5, (1, 2))
    for kind in ("block", "ar"):
        build_network(kind, view, config=Design(kind=kind, width=16).config(view))
    for design, part in (
        (Design(kind="flash", width=16), "is as wide as its target, 32"),
        (Design(sizes={"tap_layers": (2, 5)}), "the target has 4 layers, there is none to tap at"),
    ):
        with pytest.raises(ConfigError, match=part):
            design.config(view)
    for values, part in (
        ({"kind": "lookup"}, "known: ar, block, flash"),
        ({"compressor": "zip"}, "unknown compressor"),
    ):
        with pytest.raises(ConfigError, match=part):
            Design(**values)


def test_wide_drafters_learn_more_slowly() -> None:
    job = Job(out=Path("out"), data="town:1")
    wide = replace(
        Design().config(tiny_view()),
        width=4096,
        compressor=replace(Design().config(tiny_view()).compressor, width=4096),
    )
    assert job.training_of(wide).learning_rate == 3e-4
    assert job.training_of(Design().config(tiny_view())).learning_rate == 6e-4
    assert replace(job, learning_rate=1e-3).training_of(wide).learning_rate == 1e-3


def test_a_state_of_before_the_present_optimizer_is_refused(tmp_path: Path) -> None:
    identity = Job(out=tmp_path, data="town:1").identity("f")
    before = {name: value for name, value in identity.items() if name != "optimizer"}
    save_state(tmp_path, {"optimizer": {}}, before)
    with pytest.raises(ConfigError, match="optimizer None, now it is Muon and AdamW"):
        load_state(tmp_path, identity)


def test_a_worker_finds_everything_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").touch()
    job = replace(job_in(Path("out")), data="data.jsonl", heldout_data="town:3").with_absolute_paths()
    assert (job.out, job.data, job.heldout_data) == (tmp_path / "out", str(tmp_path / "data.jsonl"), "town:3")
    hub = replace(job.config, model=ModelConfig(name="owner/name"))
    assert replace(job, config=hub).with_absolute_paths().config.model.name == "owner/name"


def test_a_figure_is_drawn_where_it_can_be(
    job: Job, events: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module = importlib.import_module

    def without_matplotlib(name: str) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return import_module(name)

    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", without_matplotlib)
        assert not draw(job.out / journal_file(0), tmp_path / "a.png")
    if importlib.util.find_spec("matplotlib") is not None:
        assert draw(job.out / journal_file(0), tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        assert not draw(tmp_path / "missing.jsonl", tmp_path / "b.png")


def test_nothing_is_loaded_before_the_data_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the target was loaded")

    monkeypatch.setattr(run_module, "load_target", refuse)
    with pytest.raises(ConfigError, match="cannot read"):
        data_of(replace(job_in(tmp_path), data=str(tmp_path / "missing.jsonl")))
