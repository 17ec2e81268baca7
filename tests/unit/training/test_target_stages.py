"""The target's training: labels, packing, grounding, schedule and the files it leaves."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from flashsd_ray.models.pretrained import BUNDLED_TARGETS
from flashsd_ray.training.optimizer import Optimizers
from flashsd_ray.training.target import tokenizer as tokenizer_stage
from flashsd_ray.training.target.architecture import PATCHES_PER_FRAME, target_config
from flashsd_ray.training.target.captions import caption_loss
from flashsd_ray.training.target.grounding import GroundingLoss, word_scores
from flashsd_ray.training.target.labels import IGNORED, label_patches
from flashsd_ray.training.target.package import build_model, build_processor, save_target
from flashsd_ray.training.target.packing import Packer, attention_bias
from flashsd_ray.training.target.settings import is_inner, rates
from flashsd_ray.training.target.stream import ClipStream, render_batch
from flashsd_ray.training.target.tokenizer import first_word_token
from flashsd_ray.training.town import evaluate
from flashsd_ray.training.town.catalog import KIND_NAMES
from flashsd_ray.training.town.evaluate import ask
from flashsd_ray.training.town.language import converse
from flashsd_ray.training.town.render import clip
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.training.town.teaching import OBJECT_HEADS


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(BUNDLED_TARGETS["demo"])


@pytest.fixture(scope="module")
def tiny_model(processor) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    tokenizer = processor.tokenizer
    config = target_config(len(tokenizer), pad=0, bos=1, eos=2, image=processor.image_token_id)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 1
    return LlavaForConditionalGeneration(config).eval()


def test_patch_labels_name_the_object_under_the_patch():
    shown = clip(3, "heldout", frame_count=2)
    labels = label_patches(shown)
    assert labels.objects.shape == (2, PATCHES_PER_FRAME, len(OBJECT_HEADS))
    seen = {KIND_NAMES[kind - 1] for kind in np.unique(labels.objects[..., 0]) if kind > 0}
    assert seen <= {item.kind for objects in shown.visible for item in objects}
    assert seen
    assert labels.objects.min() >= IGNORED


def test_a_batch_is_a_pure_function_of_its_index():
    stream = ClipStream(split="train", first_seed=5, batch_size=2, frame_counts=(1, 2))
    first, second = render_batch(stream, 4), render_batch(stream, 4)
    assert torch.equal(first.pixels, second.pixels)
    assert first.scenes == second.scenes


def test_text_survives_the_tokenizer_and_object_words_are_distinct(processor):
    tokenizer = processor.tokenizer
    answer = converse(sample_scene(4, "train"), "detail", 0).answer
    for text in (answer, "Ünseen wörds, 12 km!"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
    words = {first_word_token(tokenizer, name) for name in KIND_NAMES}
    assert len(words) == len(KIND_NAMES)


def test_the_tokenizer_of_a_run_outlives_edits_of_the_language(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_stage, "CORPUS_SCENES", 20)
    first = tokenizer_stage.stage_tokenizer(tmp_path)
    monkeypatch.setattr(tokenizer_stage, "CORPUS_SCENES", 5)
    assert tokenizer_stage.stage_tokenizer(tmp_path).get_vocab() == first.get_vocab()


def test_a_packed_exchange_scores_as_it_would_alone(processor, tiny_model):
    packer = Packer(processor.tokenizer)
    text = packer.pack((sample_scene(8, "train"),), 1, is_early=False)
    hidden = _hidden(tiny_model, text.input_ids, text.positions, text.segments)
    for segment in range(1, int(text.segments.max()) + 1):
        alone = (text.segments[0] == 0) | (text.segments[0] == segment)
        ids = text.input_ids[:, alone]
        positions = torch.arange(ids.shape[1])[None]
        expected = _hidden(tiny_model, ids, positions, torch.zeros_like(ids))
        assert torch.allclose(hidden[:, alone], expected, atol=1e-4)


def test_packed_targets_are_the_answers(processor):
    tokenizer = processor.tokenizer
    scene = sample_scene(9, "train")
    text = Packer(tokenizer).pack((scene,), 1, is_early=False)
    first = text.targets[(text.segments == 1) & (text.targets >= 0)]
    assert tokenizer.decode(first, skip_special_tokens=True) == converse(scene, "detail", 0).answer


def test_packed_rows_read_as_the_chat_template_writes(processor):
    tokenizer = processor.tokenizer
    scene = sample_scene(9, "train")
    text = Packer(tokenizer).pack((scene,), 1, is_early=False)
    row = text.input_ids[0][(text.segments[0] == 0) | (text.segments[0] == 1)]
    exchange = converse(scene, "detail", 0)
    content = [{"type": "image"}, {"type": "text", "text": exchange.prompt}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": exchange.answer}]},
    ]
    written = processor.apply_chat_template(messages)
    written = written.replace("<image>", "<image>" * PATCHES_PER_FRAME)
    assert tokenizer.encode(written, add_special_tokens=False) == row.tolist()


def test_grounding_loss_falls_when_patches_say_their_words(processor, tiny_model):
    loss = GroundingLoss(processor.tokenizer)
    batch = render_batch(ClipStream(split="train", first_seed=0, batch_size=2, frame_counts=(1,)), 0)
    projected = torch.randn(2, PATCHES_PER_FRAME, 320)
    before, _ = loss(word_scores(tiny_model, projected), batch.objects, batch.scene)
    kinds = batch.objects.flatten(1, 2)[..., 0].clamp(min=1) - 1
    embeddings = tiny_model.get_input_embeddings().weight
    after, named = loss(word_scores(tiny_model, embeddings[loss.kind_ids[kinds]]), batch.objects, batch.scene)
    assert after < before
    assert named > 0.9


def test_caption_loss_reaches_text_model_and_projector_but_not_the_tower(processor):
    model = build_model(processor.tokenizer).to(torch.bfloat16)
    model.model.language_model.layers = model.model.language_model.layers[:1]
    model.model.vision_tower.requires_grad_(requires_grad=False)
    batch = render_batch(ClipStream(split="train", first_seed=0, batch_size=1, frame_counts=(1,)), 0)
    text = Packer(processor.tokenizer).pack(batch.scenes, 1, is_early=True)
    loss, parts = caption_loss(model, GroundingLoss(processor.tokenizer), batch, text)
    loss.backward()
    assert parts["answers"] > 0
    assert model.model.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0
    assert model.model.language_model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in model.model.vision_tower.parameters())


def test_optimizers_move_bf16_weights_through_float32_masters():
    layer = nn.Linear(4, 4).to(torch.bfloat16)
    optimizers = Optimizers([("layers.0.weight", layer.weight), ("bias", layer.bias)], rates(1e-2), is_inner)
    before = layer.weight.detach().clone()
    layer(torch.ones(2, 4, dtype=torch.bfloat16)).float().pow(2).sum().backward()
    optimizers.step(0.5)
    assert not torch.equal(before, layer.weight)
    assert torch.equal(optimizers.masters[0].to(torch.bfloat16), layer.weight)
    assert layer.weight.grad is None


def test_the_schedule_warms_up_then_falls():
    share = rates(1e-2).share
    assert share(0.0) < 0.1
    assert share(0.03) == pytest.approx(1.0)
    assert share(0.5) > share(0.9) > share(1.0) > 0


def test_a_saved_target_loads_through_the_auto_classes_and_answers(tmp_path, monkeypatch, processor, tiny_model):
    monkeypatch.setattr(evaluate, "MAX_NEW_TOKENS", 4)
    save_target(tiny_model, processor.tokenizer, tmp_path / "target")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "target")
    again = AutoProcessor.from_pretrained(tmp_path / "target")
    assert loaded.dtype == torch.bfloat16
    shown = clip(0, "heldout", frame_count=2)
    answers = ask(loaded, again, [shown, shown], ["What is in this video?", "Where is this?"])
    assert len(answers) == 2


def test_the_processor_sees_the_pixels_that_training_saw(processor):
    batch = render_batch(
        ClipStream(split="heldout", first_seed=0, batch_size=1, frame_counts=(2,), is_augmented=False),
        0,
    )
    images = [frame.permute(1, 2, 0).numpy() for frame in batch.pixels[0]]
    made = build_processor(processor.tokenizer).image_processor(images, return_tensors="pt")
    expected = batch.pixels[0].float() / 127.5 - 1.0
    assert torch.allclose(made["pixel_values"], expected, atol=1e-5)


def _hidden(model, ids, positions, segments):
    model.model.language_model.config._attn_implementation = "eager"
    embedded = model.get_input_embeddings()(ids)
    return model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=attention_bias(segments, embedded.dtype),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
