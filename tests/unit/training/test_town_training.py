"""The town's target: what its stages learn from, and that each goes on where it was stopped."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import ConfigError
from flashsd_ray.training.drafter.data import open_data
from flashsd_ray.training.drafter.questions import load_visuals
from flashsd_ray.training.target import align, architecture, captions, command, packing, progress, vision
from flashsd_ray.training.target import tokenizer as tokenizer_stage
from flashsd_ray.training.target.architecture import FRAMES_PER_CLIP, PATCHES_PER_FRAME
from flashsd_ray.training.target.labels import label_patches
from flashsd_ray.training.target.package import MAX_NEW_TOKENS
from flashsd_ray.training.target.packing import Packer
from flashsd_ray.training.target.progress import RunClock
from flashsd_ray.training.target.settings import Event, Stage
from flashsd_ray.training.target_options import STAGES, STEPS
from flashsd_ray.training.town.checking import Tally
from flashsd_ray.training.town.evaluate import evaluate_target
from flashsd_ray.training.town.gallery import page, picture, telling_scene
from flashsd_ray.training.town.language import TASKS, converse
from flashsd_ray.training.town.render import clip
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.training.town.teaching import OBJECT_HEADS, OBJECT_WORDS, SCENE_HEADS


@pytest.fixture(scope="module")
def tokenizer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_stage, "CORPUS_SCENES", 400)
        return tokenizer_stage.train_tokenizer()


@pytest.fixture
def small(monkeypatch):
    """Stages of one layer that learn from two clips a step, and compile and judge nothing."""
    tower, text = architecture.vision_config, architecture.text_config
    for module in (architecture, vision):
        monkeypatch.setattr(module, "vision_config", lambda: one_layer(tower()))
    monkeypatch.setattr(architecture, "text_config", lambda *sizes: one_layer(text(*sizes)))
    monkeypatch.setattr(tokenizer_stage, "CORPUS_SCENES", 20)
    monkeypatch.setattr(vision, "HELDOUT_CLIPS", 2)
    for module in (vision, align, captions):
        monkeypatch.setattr(module, "BATCH_SIZE", 2)
    monkeypatch.setattr(vision, "compile_tower", lambda model: None)
    for module in (align, captions):
        monkeypatch.setattr(module, "compile_layers", lambda model: None)
    monkeypatch.setattr(captions, "FOUR_FRAMES_SHARE", 2.0)
    monkeypatch.setattr(captions, "evaluate_target", lambda *_, **__: Tally())
    monkeypatch.setattr(packing, "SUFFIX_TOKENS", 120)


def one_layer(config):
    config.num_hidden_layers = 1
    return config


def test_every_class_of_a_clip_is_within_its_head():
    for seed in range(20):
        labels = label_patches(clip(seed, frame_count=3, size_px=48))
        assert labels.objects.shape == (3, PATCHES_PER_FRAME, len(OBJECT_HEADS))
        assert (labels.objects.max(axis=(0, 1)) < list(OBJECT_HEADS.values())).all()
        assert (labels.scene < list(SCENE_HEADS.values())).all()
    for name, words in OBJECT_WORDS.items():
        assert len(words) == OBJECT_HEADS[name] - 1


def test_detailed_captions_are_long_and_short_ones_are_not(tokenizer):
    def mean_length(task: str) -> float:
        exchanges = [converse(sample_scene(seed, "heldout"), task, 0) for seed in range(200)]
        return float(np.mean([len(tokenizer.encode(one.answer)) for one in exchanges]))

    assert mean_length("detail") >= 60
    assert mean_length("short") <= 25


def test_visual_tokens_outnumber_text(tokenizer):
    for seed in range(100):
        scene = sample_scene(seed, "heldout")
        for task in TASKS:
            said = converse(scene, task, 0)
            text = len(tokenizer.encode(said.prompt)) + len(tokenizer.encode(said.answer))
            assert text < PATCHES_PER_FRAME * FRAMES_PER_CLIP
            assert len(tokenizer.encode(said.answer)) <= MAX_NEW_TOKENS


def test_words_for_kinds_are_distinct_and_whole(tokenizer):
    ids = {tokenizer_stage.first_word_token(tokenizer, word) for word in OBJECT_WORDS["kind"]}
    assert len(ids) == len(OBJECT_WORDS["kind"])


def test_a_row_holds_a_detailed_caption_and_more(tokenizer):
    packed = Packer(tokenizer).pack((sample_scene(5, "train"),), 4, is_early=False)
    assert packed.segments.max() >= 3
    first = packed.targets[(packed.segments == 1) & (packed.targets >= 0)]
    truth = converse(sample_scene(5, "train"), "detail", 0).answer
    assert tokenizer.decode(first, skip_special_tokens=True) == truth


def test_steps_are_counted_across_resumes_and_not_the_time():
    clock = RunClock(10, step=4, spent_s=5000.0)
    assert (clock.progress, clock.is_done) == (0.4, False)
    clock.step = 10
    assert clock.is_done
    assert clock.left_s == 0


def test_every_stage_stops_at_a_signal_and_goes_on_from_there(tmp_path: Path, small):
    for name in STAGES:
        stage = Stage(name=name, out_dir=tmp_path, steps=2)
        progress._STOPPED.set()  # the first step is finished, then it ends
        path = command.train_stage(stage)
        progress._STOPPED.clear()
        state = torch.load(path, weights_only=True)
        assert (path.name, state["is_done"]) == (f"{name}.pt", False)
        before = state["step"]
        command.train_stage(replace(stage, is_resumed=True))
        state = torch.load(path, weights_only=True)
        assert before < state["step"] == 2
        assert state["is_done"]
    assert (tmp_path / "target" / "model.safetensors").exists()


def test_a_resumed_training_learns_what_an_uninterrupted_one_learns(tmp_path: Path, small):
    whole = vision.train_vision(Stage(name="vision", out_dir=tmp_path / "whole", steps=3))
    stage = Stage(name="vision", out_dir=tmp_path / "parts", steps=3)
    progress._STOPPED.set()
    vision.train_vision(stage)
    progress._STOPPED.clear()
    parts = vision.train_vision(replace(stage, is_resumed=True))
    one, other = (torch.load(path, weights_only=True)["model"] for path in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stage_says_how_far_it_is_and_what_it_measured(tmp_path: Path, small):
    heard: list[Event] = []
    vision.train_vision(Stage(name="vision", out_dir=tmp_path, steps=2, listener=heard.append))
    assert {(event.stage, event.steps) for event in heard} == {("vision", 2)}
    assert [set(event.figures) for event in heard if event.is_heldout] == [{*OBJECT_HEADS, *SCENE_HEADS}]
    assert heard[-2].step == 2
    assert heard[-2].figures["loss"] > 0


def asked(tmp_path: Path, **changes) -> Namespace:
    given = {"stage": "all", "out": tmp_path, "seed": 1, "threads": 1, "resume": False, "overwrite": False}
    return Namespace(**given | {"steps": None} | changes)


def test_all_means_four_stages_and_finished_ones_are_left_alone(tmp_path: Path, monkeypatch):
    for name in STAGES:
        progress.save_checkpoint(tmp_path / f"{name}.pt", {"step": STEPS[name]})
        module, trainer = {"vision": (vision, "train_vision"), "align": (align, "train_align")}.get(
            name, (captions, "train_answers")
        )
        monkeypatch.setattr(module, trainer, lambda *_: pytest.fail("it was finished"))
    monkeypatch.setattr(progress, "stop_at_signals", lambda: None)
    assert command.train_stages(asked(tmp_path, resume=True), lambda event: None) == 0


def test_a_checkpoint_is_not_overwritten_by_accident(tmp_path: Path):
    progress.save_checkpoint(tmp_path / "align.pt", {"step": 1})
    with pytest.raises(ConfigError, match=r"align.pt exists: --resume goes on from it, --overwrite begins anew"):
        command.train_stages(asked(tmp_path), lambda event: None)


def test_a_stage_without_the_one_before_it_says_which_is_missing(tmp_path: Path, small):
    with pytest.raises(ConfigError, match="stage align begins where stage vision ended"):
        align.train_align(Stage(name="align", out_dir=tmp_path, steps=1))


def test_the_figures_of_a_model_that_knows_nothing_are_low(tokenizer, monkeypatch):
    config = architecture.target_config(len(tokenizer), pad=0, bos=1, eos=2, image=3)
    one_layer(config.vision_config), one_layer(config.text_config)
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.max_new_tokens = 4
    figures = evaluate_target(model, tokenizer, clip_count=2, frame_count=2, split="novel").figures()
    assert figures["object_f1"] == figures["motion"] == figures["style_json"] == 0.0


def test_the_drafter_can_learn_from_the_town():
    data = open_data("town:30", num_heldout=4)
    assert (len(data.train), len(data.heldout)) == (30, 4)
    assert data.train[0].visuals == ("town:train:0",)
    assert data.heldout[0].visuals[0].startswith("town:heldout:")
    (shown,) = load_visuals(data.train[7], MediaConfig(num_frames=4))
    assert shown.frames.shape[0] == 4
    with pytest.raises(ConfigError, match="known: train, heldout, novel"):
        load_visuals(replace(data.train[0], visuals=("town:spare:3",)), MediaConfig())


def test_the_gallery_shows_and_says_everything_and_needs_no_other_file():
    scene = telling_scene("farm")
    made = page([scene])
    assert all(converse(scene, task, 0).prompt.split()[0] in made for task in TASKS)
    assert "data:image/webp;base64," in made
    assert "http" not in made
    assert picture([scene]).width > 500
