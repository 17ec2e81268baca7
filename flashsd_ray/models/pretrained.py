"""The one door to the transformers library: checkpoints in, a target's parts out.

A checkpoint may be a hub id, a local directory, or a name of the bundled models. Which architectures work is said
in ``FAMILIES``; everything else is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flashsd_ray.errors import CheckpointError
from flashsd_ray.models.decoder import Decoder
from flashsd_ray.models.outline import load_without_layers, shape_of
from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports

SMALL_MATRIX_BYTES = 2 * 2**20  # measured: below it two threads are slower than one (docs/log.md)
BUNDLED = Path(__file__).parents[1] / "assets"
BUNDLED_TARGETS = {"demo": BUNDLED / "demo" / "target"}


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture of the transformers library is reached and spoken to."""

    name: str  # as users know it
    text_model: str  # attribute path of the decoder below ``model.model``
    takes_video: bool  # whether its processor knows videos; if not, each frame is sent as an image
    independent_images: bool  # whether each image is one run of rows that do not depend on the other images
    mixes_video: bool = True  # whether images and videos can stand in one prompt
    min_video_frames: int = 1
    stacks_videos: bool = False  # whether its forward takes features of videos as one tensor, [videos, N, D]
    image_token: str = "image_token_id"  # attribute of the config that holds the placeholder's id
    video_token: str = "video_token_id"


FAMILIES: Mapping[str, Family] = {
    "llava": Family("LLaVA 1.5", "language_model", takes_video=False, independent_images=True),
    "llava_onevision": Family(
        "LLaVA-OneVision", "language_model", takes_video=True, independent_images=False, stacks_videos=True
    ),
    "qwen2_5_vl": Family("Qwen2.5-VL", "language_model", takes_video=True, independent_images=True),
    "qwen3_vl": Family("Qwen3-VL", "language_model", takes_video=True, independent_images=True, min_video_frames=2),
    "smolvlm": Family("SmolVLM2", "text_model", takes_video=True, independent_images=False, mixes_video=False),
}


@dataclass(frozen=True, eq=False)
class PretrainedTarget:
    """A loaded checkpoint: the library's model and processor, and what the engine needs to know of them."""

    name: str
    path: Path | None  # None when the files came from the hub
    family: Family
    model: Any  # the library's ...ForConditionalGeneration
    processor: Any

    @cached_property
    def decoder(self) -> Decoder:
        """The language model as our decode loop; shares the weights."""
        return Decoder(self.text_model, self.model.get_output_embeddings().weight.data)

    @property
    def text_model(self) -> nn.Module:
        """The library's decoder without its head."""
        module: nn.Module = self.model.model.get_submodule(self.family.text_model)
        return module

    @property
    def text_config(self) -> Any:
        """Configuration of the language model."""
        return self.model.config.get_text_config()

    @property
    def tokenizer(self) -> Any:
        """The library's tokenizer."""
        return self.processor.tokenizer

    @property
    def context_length(self) -> int:
        """Most positions the language model was built for."""
        return int(self.text_config.max_position_embeddings)

    @property
    def rope_theta(self) -> float:
        """Base of the rotary frequencies."""
        return float(self.text_config.rope_parameters["rope_theta"])

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of the tokens, special ones left out."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    @cached_property
    def placeholders(self) -> dict[Literal["image", "video"], int]:
        """Token ids that stand where visual features go, by the kind of picture."""
        names: dict[Literal["image", "video"], str] = {
            "image": self.family.image_token,
            "video": self.family.video_token,
        }
        found = {kind: getattr(self.model.config, name, None) for kind, name in names.items()}
        return {kind: int(token_id) for kind, token_id in found.items() if token_id is not None}

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """All of them."""
        return frozenset(self.placeholders.values())

    @cached_property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer, as ``generate`` would take them."""
        configured = self.model.generation_config.eos_token_id
        if configured is None:
            configured = self.tokenizer.eos_token_id
        if configured is None:
            return ()
        return tuple(configured) if isinstance(configured, list) else (int(configured),)

    @cached_property
    def fingerprint(self) -> str:
        """Short digest of the language model's configuration and of a sample of its weights."""
        decoder = self.decoder
        weights = (decoder.embedding, decoder.layers[0].qkv.weight, decoder.layers[-1].down.weight)
        return identity(self.text_config, weights)

    def close(self) -> None:
        """Processes that hold other parts of the target have ended."""

    def limit_threads(self, threads: int) -> int:
        """The number of CPU threads that torch uses from now on in this process, which is returned."""
        return limit_threads(self.decoder, threads)


_IDENTITY = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size", "model_type")
IDENTITY_COLUMNS = 64  # of each weight, which are all that an identity looks at


def identity(
    text_config: Any,
    weights: Iterable[Tensor],  # embedding, query/key/value of the first layer, down projection of the last
) -> str:
    """Short digest of a language model's configuration and of a sample of its weights."""
    described = text_config.to_dict()
    kept = {key: described[key] for key in sorted(described) if key in _IDENTITY}
    digest = hashlib.blake2b(json.dumps(kept, default=str).encode(), digest_size=8)
    for weight in weights:
        sample = weight[:: max(1, len(weight) // 64), :IDENTITY_COLUMNS].detach().to("cpu", torch.bfloat16)
        digest.update(sample.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def limit_threads(
    decoder: Decoder,
    threads: int,  # 0: as the decoder's size suggests
    sharing: int = 1,  # processes that decode on this machine together
) -> int:
    """The number of CPU threads that torch uses from now on in this process, which is returned.

    With 0 a model of small matrices gets one: sharing a product of 50 us costs more than it saves, and a thread
    that is kept waiting on a busy machine stops its partner at every one of hundreds of products per token.
    """
    if not threads and decoder.device.type == "cpu":
        largest = max(layer.gate_up.weight.nbytes for layer in decoder.layers)
        threads = 1 if largest <= SMALL_MATRIX_BYTES else torch.get_num_threads() // sharing if sharing > 1 else 0
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def load_target(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    has_layers: bool = True,
) -> PretrainedTarget:
    """The named checkpoint is in memory, ready to encode prompts and to decode.

    Without its layers it can encode only; those that stand in their place have shapes and no memory.

    Raises:
        CheckpointError: it cannot be found, its architecture is not supported, or its files are damaged.
    """
    ensure_torchvision_imports()
    from transformers import AutoModelForImageTextToText, AutoProcessor

    where = str(BUNDLED_TARGETS.get(name, name))
    path = Path(where) if Path(where).is_dir() else None
    if path is None and where.startswith((".", "/", "~")):
        raise CheckpointError(f"cannot load target {name!r}: there is no such directory")
    chosen_device = resolve_device(device)
    try:
        config = config_of(name)
        family = family_of(config, name)
        chosen_dtype = resolve_dtype(dtype, chosen_device)
        if has_layers:
            model: Any = AutoModelForImageTextToText.from_pretrained(where, config=config, dtype=chosen_dtype)
        else:
            model = load_without_layers(where, config, chosen_dtype)
        processor = AutoProcessor.from_pretrained(where)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _unloadable(name, error) from error
    # Layers without memory cannot be moved: they are put in behind this.
    model = model.to(chosen_device).eval()
    if not has_layers:
        shapes = shape_of(config, chosen_dtype)
        model.model.get_submodule(family.text_model).layers = shapes.model.get_submodule(family.text_model).layers
    return PretrainedTarget(name, path, family, model, processor)


def config_of(name: str) -> Any:
    """The library's configuration of the named checkpoint.

    Raises:
        CheckpointError: it cannot be found or read.
    """
    ensure_torchvision_imports()
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(BUNDLED_TARGETS.get(name, name)))
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _unloadable(name, error) from error


def _unloadable(name: str, error: Exception) -> CheckpointError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return CheckpointError(f"cannot load target {name!r}: {first_line}")


def family_of(config: Any, name: str) -> Family:
    """The family that a configuration belongs to.

    Raises:
        CheckpointError: it is not one of those that are supported.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(f"{entry.name} ({key})" for key, entry in FAMILIES.items())
        raise CheckpointError(f"{name}: architecture {config.model_type!r} is not supported; supported are {known}")
    return family


def resolve_device(device: str) -> torch.device:
    """The device meant; ``auto`` is the first GPU when there is one.

    Raises:
        CheckpointError: the device does not exist here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise CheckpointError(f"unknown device {device!r}; use auto, cpu or cuda[:N]") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device {device!r} was asked for, but torch sees no GPU here")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"device {device!r} was asked for, torch sees {torch.cuda.device_count()} GPUs here")
    return chosen


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype meant; ``auto`` is bfloat16 where the device multiplies it in hardware, float32 elsewhere."""
    if dtype != "auto":
        chosen: torch.dtype = getattr(torch, dtype)
        return chosen
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if has_fast_bfloat16() else torch.float32


def has_fast_bfloat16() -> bool:
    """Whether this CPU has bfloat16 matrix instructions."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "AVX512" in capabilities and any(getattr(torch.cpu, check, bool)() for check in checks)
