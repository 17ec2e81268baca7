"""The library's models with less than all of their weights: shapes alone, or everything but the decoder's layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def shape_of(config: Any, dtype: torch.dtype) -> Any:
    """The library's model of this configuration, without memory."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=dtype)


def load_without_layers(where: str, config: Any, dtype: torch.dtype) -> Any:
    """The library's model of a checkpoint with no decoder layers; nothing of them is read.

    Its configuration says again how many there should be.
    """
    from transformers import AutoModelForImageTextToText

    shortened = copy.deepcopy(config)
    text = shortened.get_text_config()
    text.num_hidden_layers = 0
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = []
    with _quiet():
        model = AutoModelForImageTextToText.from_pretrained(where, config=shortened, dtype=dtype)
    whole = config.get_text_config()
    text = model.config.get_text_config()
    text.num_hidden_layers = whole.num_hidden_layers
    if getattr(whole, "layer_types", None) is not None:
        text.layer_types = list(whole.layer_types)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """The library does not report that the layers were left out."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
