"""Builds tiny checkpoints with seeded random weights, one per supported family, that load by the real path.

What comes out is a folder such as the Hub would serve: config, weights, tokenizer, processor, chat template and
generation config. The weights are scaled so that greedy text is varied, depends on the pictures and has clear winners.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports

HAS_TORCHVISION = ensure_torchvision_imports()  # before transformers, whose processors import it

import transformers  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILIES = ("llava15", "llava_onevision", "qwen25_vl", "qwen3_vl", "smolvlm2")

TEXT_VOCABULARY = 320  # 256 bytes and 64 merges
PADDED_VOCABULARY = 384  # like released models: more rows than the tokenizer has tokens
IMAGE_MEAN = [0.48, 0.46, 0.41]
IMAGE_STD = [0.27, 0.26, 0.28]

CORPUS = (
    "a red ball rolls over the green field and a small dog runs after it",
    "the camera shows a street in the rain while two people wait for the bus",
    "first the man opens the door then he looks at the table and sits down",
    "what happens in this video, which colours are in the picture",
    "describe the images in one sentence and compare them with each other",
)


def missing_requirement(family: str) -> str | None:
    """Returns why a family's processor cannot be loaded here, or None when it can."""
    if family == "llava15":
        return None
    if not HAS_TORCHVISION:
        return f"the video processor of {family} imports torchvision, which is not usable here"
    if family == "smolvlm2" and importlib.util.find_spec("num2words") is None:
        return "the processor of smolvlm2 imports num2words, which is not installed"
    if family == "smolvlm2" and tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (5, 23):
        return f"transformers {transformers.__version__} cannot run a smolvlm2 of this size; 5.23 can"
    return None


@cache
def _session_folder() -> TemporaryDirectory:
    """Returns a folder that is removed when this process ends."""
    return TemporaryDirectory(prefix="flashsd-tiny-")


def checkpoint(family: str, root: Path | None = None) -> Path:
    """Returns the folder of a family's checkpoint below `root`, which is built when it is not there yet.

    Without a root it is this process's own, or the one that FLASHSD_TINY_ROOT names, which outlives it. The name of
    the folder depends on this file's content, so a stale one is never taken; it appears complete or not at all.
    """
    root = root or Path(os.environ.get("FLASHSD_TINY_ROOT") or _session_folder().name)
    version = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=4).hexdigest()
    folder = root / f"{family}-{version}"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{family}-", dir=root) as unfinished:
            built = Path(unfinished) / "built"
            BUILDERS[family](built)
            with suppress(OSError):  # another process finished first
                built.rename(folder)
    return folder


def train_tokenizer(
    special_tokens: dict[str, str], plain_tokens: tuple[str, ...] = (), *, vocabulary: int, adds_bos: bool = False
) -> transformers.PreTrainedTokenizerFast:
    """Returns a byte-level BPE tokenizer trained on the corpus, with `special_tokens` named as its attributes."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    tokens = [*dict.fromkeys(special_tokens.values()), *plain_tokens]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    if adds_bos:
        bos = special_tokens["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    named = {name: token for name, token in special_tokens.items() if name in ("bos_token", "eos_token", "pad_token")}
    extra = {name: token for name, token in special_tokens.items() if name not in named}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=extra, padding_side="left", **named
    )


def chat_template(*, head: str = "", opening: str, closing: str, image: str, video: str, answer: str) -> str:
    """Returns a Jinja template that writes each message's parts between `opening` and `closing`."""
    part = (
        "{%- if part['type'] == 'image' -%}{{ '" + image + "' }}"
        "{%- elif part['type'] == 'video' -%}{{ '" + video + "' }}"
        "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    )
    return (
        "{{- '" + head + "' -}}{%- for message in messages -%}{{ " + opening + " }}"
        "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
        "{%- for part in message['content'] -%}" + part + "{%- endfor -%}{%- endif -%}{{ '" + closing + "' }}"
        "{%- endfor -%}{%- if add_generation_prompt -%}{{ '" + answer + "' }}{%- endif -%}"
    )


@torch.no_grad()
def randomise(model: nn.Module, *, seed: int, embedding_std: float = 1.0, gain: float = 1.6) -> None:
    """Every parameter holds seeded noise on the scale of its fan-in; norms stay near one, biases near zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            is_norm = "norm" in name and name.endswith("weight")
            value = 1.0 + 0.1 * noise if is_norm else 0.1 * noise
        elif "embed_tokens" in name:
            value = embedding_std * noise
        elif "embed" in name and "patch_embed" not in name:
            value = 0.3 * noise
        else:
            value = gain * noise / math.sqrt(parameter.numel() / parameter.shape[0])
        parameter.copy_(value)


@torch.no_grad()
def shape_output_head(model: nn.Module, *, never: list[int], ends: list[int], num_tokens: int, end_gain: float) -> None:
    """No greedy text holds a placeholder or an id without a token, and it ends now and then."""
    head: Tensor = model.get_output_embeddings().weight  # [V, D]
    head[num_tokens:] = 0.0
    head[never] = 0.0
    head[ends] *= end_gain


def save(
    folder: Path,
    model: nn.Module,
    processor: transformers.ProcessorMixin,
    *,
    end_tokens: tuple[str, ...],
    dtype: torch.dtype = torch.float32,
) -> None:
    """The folder holds everything that `from_pretrained` wants; the generation config comes last."""
    tokenizer = processor.tokenizer
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(list(end_tokens)),
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    processor.save_pretrained(folder)
    model.to(dtype).save_pretrained(folder)


def _finish(
    folder: Path,
    model: nn.Module,
    processor: transformers.ProcessorMixin,
    *,
    seed: int,
    end_tokens: tuple[str, ...],
    end_gain: float = 1.25,
    embedding_std: float = 1.0,
) -> None:
    """The model is randomised, its head shaped, and all of it saved."""
    tokenizer = processor.tokenizer
    randomise(model, seed=seed, embedding_std=embedding_std)
    names = ("image_token_id", "video_token_id")
    never = [token for name in names if (token := getattr(model.config, name, None)) is not None]
    ends = tokenizer.convert_tokens_to_ids(list(end_tokens))
    shape_output_head(model, never=never, ends=ends, num_tokens=len(tokenizer), end_gain=end_gain)
    save(folder, model, processor, end_tokens=end_tokens)


def _text_config(**changes: object) -> dict[str, object]:
    """Returns what the text parts of all tiny families share, with `changes` made."""
    return {
        "vocab_size": PADDED_VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
        **changes,
    }


def build_llava15(folder: Path) -> None:
    """The folder holds a LLaVA 1.5: Llama text, CLIP vision of 5 x 5 patches, no video placeholder."""
    tokenizer = train_tokenizer(
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "image_token": "<image>"},
        vocabulary=TEXT_VOCABULARY,
        adds_bos=True,
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 40,
        "patch_size": 8,
        "projection_dim": 32,
    }
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**_text_config()),
        vision_config=transformers.CLIPVisionConfig(**vision),
        image_token_index=tokenizer.image_token_id,
        image_seq_length=25,
    )
    image_processor_class = transformers.CLIPImageProcessor if HAS_TORCHVISION else transformers.CLIPImageProcessorPil
    processor = transformers.LlavaProcessor(
        image_processor_class(size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template(
            opening="message['role'] | upper + ': '", closing=" ", image="<image>\\n", video="", answer="ASSISTANT:"
        ),
    )
    model = transformers.LlavaForConditionalGeneration(config)
    _finish(folder, model, processor, seed=101, end_tokens=("</s>",))


def build_llava_onevision(folder: Path) -> None:
    """The folder holds a LLaVA-OneVision: Qwen2 text, SigLIP vision of 5 x 5 patches, up to 2 x 2 tiles an image."""
    tokenizer = train_tokenizer(
        {
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "image_token": "<image>",
            "video_token": "<video>",
            "turn_token": "<|im_start|>",
        },
        vocabulary=TEXT_VOCABULARY,
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 40,
        "patch_size": 8,
        "vision_use_head": False,
    }
    pinpoints = [[40, 40], [40, 80], [80, 40], [80, 80]]
    config = transformers.LlavaOnevisionConfig(
        text_config=transformers.Qwen2Config(**_text_config()),
        vision_config=transformers.SiglipVisionConfig(**vision),
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_2",
    )
    size = {"height": 40, "width": 40}
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=25,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
        chat_template=chat_template(
            opening="'<|im_start|>' + message['role'] + '\\n'",
            closing="<|im_end|>\\n",
            image="<image>\\n",
            video="<video>\\n",
            answer="<|im_start|>assistant\\n",
        ),
    )
    model = transformers.LlavaOnevisionForConditionalGeneration(config)
    _finish(folder, model, processor, seed=105, end_tokens=("<|im_end|>",), end_gain=1.35)


QWEN_TOKENS = {
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "turn_token": "<|im_start|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}
QWEN_TEMPLATE = chat_template(
    opening="'<|im_start|>' + message['role'] + '\\n'",
    closing="<|im_end|>\\n",
    image="<|vision_start|><|image_pad|><|vision_end|>",
    video="<|vision_start|><|video_pad|><|vision_end|>",
    answer="<|im_start|>assistant\\n",
)


def _qwen_ids(tokenizer: transformers.PreTrainedTokenizerFast) -> dict[str, int]:
    """Returns the token ids that a Qwen VL config names."""
    names = ("image_token", "video_token", "vision_start_token", "vision_end_token")
    return {f"{name}_id": tokenizer.convert_tokens_to_ids(QWEN_TOKENS[name]) for name in names}


def _qwen25_processor(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.Qwen2_5_VLProcessor:
    """Returns a processor with patches of 8 pixels that are merged 2 x 2, at most 16 tokens an image or frame."""
    patches = {
        "patch_size": 8,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 4 * 16 * 16, "longest_edge": 16 * 16 * 16},
    }
    return transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(**patches),
        tokenizer,
        transformers.Qwen2VLVideoProcessor(cap_pixels_per_frame=False, **patches),
        chat_template=QWEN_TEMPLATE,
    )


def build_qwen25_vl(folder: Path) -> None:
    """The folder holds a Qwen2.5-VL: M-RoPE, biased projections, vision with one windowed and two full layers."""
    tokenizer = train_tokenizer(QWEN_TOKENS, vocabulary=TEXT_VOCABULARY)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 32,
        "fullatt_block_indexes": [1, 2],
        "out_hidden_size": 64,
        "tokens_per_second": 2,
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=_text_config(rope_parameters=rope), vision_config=vision, **_qwen_ids(tokenizer)
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    _finish(folder, model, _qwen25_processor(tokenizer), seed=104, end_tokens=("<|im_end|>", "<|endoftext|>"))


def build_qwen3_vl(folder: Path) -> None:
    """The folder holds a Qwen3-VL: deepstack at three layers, interleaved M-RoPE, QK norm, tied embeddings."""
    tokenizer = train_tokenizer(QWEN_TOKENS, vocabulary=TEXT_VOCABULARY)
    rope = {"rope_type": "default", "mrope_section": [4, 4, 4], "mrope_interleaved": True, "rope_theta": 10000.0}
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    text = _text_config(rope_parameters=rope, num_hidden_layers=4, head_dim=24, tie_word_embeddings=True)
    config = transformers.Qwen3VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, **_qwen_ids(tokenizer)
    )
    patches = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}
    image_size = {"shortest_edge": 4 * 16 * 16, "longest_edge": 16 * 16 * 16}
    video_size = {"shortest_edge": 4 * 16 * 16, "longest_edge": 8 * 16 * 16 * 12}  # of all frames together
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(size=image_size, **patches),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(size=video_size, cap_pixels_per_frame=False, **patches),
        chat_template=QWEN_TEMPLATE,
    )
    model = transformers.Qwen3VLForConditionalGeneration(config)
    ends = ("<|im_end|>", "<|endoftext|>")
    _finish(folder, model, processor, seed=111, end_tokens=ends, embedding_std=0.3)


def build_smolvlm2(folder: Path) -> None:
    """The folder holds a SmolVLM2: Llama text, 9 tokens a tile, images split into at most 2 x 2 tiles and a whole."""
    special = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|im_end|>",
        "image_token": "<image>",
        "video_token": "<video>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tiles = tuple(f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3))
    tokenizer = train_tokenizer(special, tiles, vocabulary=TEXT_VOCABULARY)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 48,
        "patch_size": 8,
    }
    config = transformers.SmolVLMConfig(
        text_config=transformers.LlamaConfig(**_text_config(pad_token_id=tokenizer.pad_token_id)),
        vision_config=vision,
        image_token_id=tokenizer.image_token_id,
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 48}}
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(do_image_splitting=True, **sizes),
        tokenizer,
        transformers.SmolVLMVideoProcessor(**sizes),
        image_seq_len=9,
        chat_template=chat_template(
            head="<|im_start|>",
            opening="message['role'] | capitalize + ': '",
            closing="<end_of_utterance>\\n",
            image="<image>",
            video="<video>",
            answer="Assistant:",
        ),
    )
    model = transformers.SmolVLMForConditionalGeneration(config)
    _finish(folder, model, processor, seed=126, end_tokens=("<end_of_utterance>",))


def build_qwen25_47m(folder: Path) -> None:
    """The folder holds a Qwen2.5-VL of about 47 million bfloat16 parameters with random weights, for benchmarks."""
    tokenizer = train_tokenizer(QWEN_TOKENS, vocabulary=TEXT_VOCABULARY)
    rope = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1000000.0}
    vision = {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "patch_size": 8,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 64,
        "fullatt_block_indexes": [1, 3],
        "out_hidden_size": 512,
        "tokens_per_second": 2,
    }
    text = _text_config(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=2,
        rope_parameters=rope,
        max_position_embeddings=32768,
    )
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_qwen_ids(tokenizer))
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    randomise(model, seed=47)
    never = [config.image_token_id, config.video_token_id]
    shape_output_head(model, never=never, ends=[], num_tokens=config.text_config.vocab_size, end_gain=1.0)
    save(folder, model, _qwen25_processor(tokenizer), end_tokens=("<|im_end|>",), dtype=torch.bfloat16)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "llava15": build_llava15,
    "llava_onevision": build_llava_onevision,
    "qwen25_vl": build_qwen25_vl,
    "qwen3_vl": build_qwen3_vl,
    "smolvlm2": build_smolvlm2,
    "qwen25_47m": build_qwen25_47m,
}
