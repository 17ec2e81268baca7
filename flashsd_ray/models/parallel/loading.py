"""From a checkpoint to what one process holds of it, when the target is split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from flashsd_ray.config import ModelConfig
from flashsd_ray.models.decoder import Decoder
from flashsd_ray.models.outline import shape_of
from flashsd_ray.models.parallel.decoders import Crew, LeadingDecoder
from flashsd_ray.models.parallel.files import CheckpointFiles
from flashsd_ray.models.parallel.orders import Hello, Join
from flashsd_ray.models.parallel.ranks import Ranks, listening, open_store
from flashsd_ray.models.parallel.share import Share, share_of
from flashsd_ray.models.parallel.weights import fill_layers, head_rows, padded
from flashsd_ray.models.pretrained import (
    BUNDLED_TARGETS,
    IDENTITY_COLUMNS,
    PretrainedTarget,
    config_of,
    family_of,
    identity,
    load_target,
    resolve_device,
    resolve_dtype,
)


@dataclass(frozen=True, eq=False)
class PartialTarget(PretrainedTarget):
    """A target of whose layers this process holds a share, or nothing."""

    whole_fingerprint: str = ""
    share: Decoder | None = None

    @cached_property
    def decoder(self) -> Decoder:
        """What this process holds of the language model."""
        return Decoder(self.text_model, head_of(self)) if self.share is None else self.share

    @cached_property
    def fingerprint(self) -> str:
        """That of the whole target."""
        return self.whole_fingerprint

    def close(self) -> None:
        """The other ranks have ended; nothing can be decoded any more."""
        if isinstance(self.share, LeadingDecoder):
            self.share.close()


def load_outline(config: ModelConfig) -> PartialTarget:
    """Everything but the layers, for whoever encodes or drafts for a split target.

    Raises:
        CheckpointError: it is missing, damaged or unsupported.
    """
    with files_of(config.name) as files:
        return _outline(config, files)


def load_leading(
    config: ModelConfig,
    crew: Crew,
    host: str,  # an address of this machine that the other ranks reach
) -> PartialTarget:
    """The target, of which this process is rank 0; the others are connected once every share is loaded.

    Raises:
        CheckpointError: it is missing, damaged or unsupported, or cannot be split over so many ranks.
        LaneLostError: another rank is not there.
    """
    outline, head = load_first_share(config)
    crew.ask(Hello())  # the others have loaded theirs
    ranks = _meet(config, crew, host, head.device)
    decoder = LeadingDecoder(outline.text_model, head, ranks, crew, vocab_size=outline.text_config.vocab_size)
    return PartialTarget(
        outline.name,
        outline.path,
        outline.family,
        outline.model,
        outline.processor,
        whole_fingerprint=outline.fingerprint,
        share=decoder,
    )


def load_first_share(config: ModelConfig) -> tuple[PartialTarget, Tensor]:
    """The target with rank 0's share in its layers, and rank 0's rows of the head; nobody is connected.

    Raises:
        CheckpointError: it is missing, damaged or unsupported, or cannot be split over so many ranks.
    """
    with files_of(config.name) as files:
        outline = _outline(config, files)
        share = share_of(outline.text_config, 0, config.tensor_parallel)
        head = _first_rows(outline, share)  # first: the others' rows are gone before the layers come
        embedding: Tensor = outline.model.get_input_embeddings().weight
        _fill(outline.text_model, files, share, embedding.dtype, embedding.device)
    return outline, head


def load_share(config: ModelConfig, rank: int) -> tuple[nn.Module, Tensor]:
    """The text model and the head with this rank's share of the weights, for any rank but the first.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or unsupported, or cannot be split over so many ranks.
    """
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    with files_of(config.name) as files:
        whole = config_of(config.name)
        text_config = whole.get_text_config()
        share = share_of(text_config, rank, config.tensor_parallel)
        shapes = shape_of(whole, dtype)
        text_model = shapes.model.get_submodule(family_of(whole, config.name).text_model)
        _fill(text_model, files, share, dtype, device)
        text_model.norm.weight = _weight(files.read(files.text("norm.weight")).to(device, dtype))
        # Rank 0 embeds for all, and where head and embedding are one it makes all logits too.
        text_model.embed_tokens.weight = _weight(torch.empty(0, text_config.hidden_size, dtype=dtype, device=device))
        is_tied = bool(whole.tie_word_embeddings)
        head = text_model.embed_tokens.weight.data if is_tied else head_rows(files, share, dtype, device)
    return text_model, head


def _meet(config: ModelConfig, crew: Crew, host: str, device: torch.device) -> Ranks:
    """Rank 0's end of the group, once all others are connected."""
    listener = listening(host)
    port, timeout_s = listener.getsockname()[1], config.rank_timeout_s
    store = open_store(host, port, config.tensor_parallel, timeout_s, listener)
    crew.tell(Join(host=host, port=port, timeout_s=timeout_s))
    return Ranks(0, config.tensor_parallel, store, device, host=host, timeout_s=timeout_s)


def files_of(name: str) -> CheckpointFiles:
    """The files of a target as a user names it.

    Raises:
        CheckpointError: it is not stored so that ranks can read their shares.
    """
    return CheckpointFiles.of(str(BUNDLED_TARGETS.get(name, name)))


def head_of(target: PretrainedTarget) -> Tensor:
    """The matrix [V, D] that makes logits, as the library's model holds it."""
    weight: Tensor = target.model.get_output_embeddings().weight.data
    return weight


def _outline(config: ModelConfig, files: CheckpointFiles) -> PartialTarget:
    target = load_target(config.name, dtype=config.dtype, device=config.device, has_layers=False)
    embedding: Tensor = target.model.get_input_embeddings().weight
    last = target.text_config.num_hidden_layers - 1
    columns = range(IDENTITY_COLUMNS)
    first = [
        files.read(files.text(f"layers.0.self_attn.{name}_proj.weight"), columns=columns) for name in ("q", "k", "v")
    ]
    down = files.read(files.text(f"layers.{last}.mlp.down_proj.weight"), columns=columns)
    sampled = (embedding, torch.cat(first).to(embedding.dtype), down.to(embedding.dtype))
    return PartialTarget(
        target.name,
        target.path,
        target.family,
        target.model,
        target.processor,
        whole_fingerprint=identity(target.text_config, sampled),
    )


def _fill(text_model: Any, files: CheckpointFiles, share: Share, dtype: torch.dtype, device: torch.device) -> None:
    head_dim = text_model.layers[0].self_attn.head_dim
    fill_layers(text_model.layers, files, share, head_dim=head_dim, dtype=dtype, device=device)


def _first_rows(target: PretrainedTarget, share: Share) -> Tensor:
    """Rank 0's part of the head: all of it where it is the embedding, which is needed here whole."""
    head = head_of(target)
    if target.model.config.tie_word_embeddings:
        return head
    mine = padded(head[share.vocabulary.start : share.vocabulary.stop].clone(), share)
    target.model.get_output_embeddings().weight = _weight(mine)  # the others' rows are let go
    return mine


def _weight(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
