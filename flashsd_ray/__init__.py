"""Lossless speculative decoding of large multimodal models, served by distributed actors."""

__version__ = "0.1.0"
