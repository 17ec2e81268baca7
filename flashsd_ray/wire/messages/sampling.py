"""How a client wants tokens chosen."""

from __future__ import annotations

import numpy as np

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.types import SamplingParams
from flashsd_ray.wire.v1 import captioning_pb2 as pb


def sampling_params(
    message: pb.Sampling,
    config: ServingConfig,
    *,
    max_new_tokens: int,  # where the message leaves it to the server
    where: str = "sampling",  # the message's own field, for errors
) -> SamplingParams:
    """What the message says; a field that it leaves at zero is the server's choice, or no limit.

    Raises:
        InvalidRequestError: a value lies outside its range.
    """
    if len(message.stop) > config.max_stop_strings:
        raise InvalidRequestError(
            f"{where}.stop holds {len(message.stop)} strings; serving.max_stop_strings allows {config.max_stop_strings}"
        )
    if any(len(text) > config.max_prompt_characters for text in message.stop):
        raise InvalidRequestError(f"{where}.stop is too long; serving.max_prompt_characters holds for it as well")
    try:
        return SamplingParams(
            temperature=_decimal(message.temperature),
            top_k=message.top_k,
            top_p=_decimal(message.top_p) or 1.0,
            max_new_tokens=message.max_new_tokens or max_new_tokens,
            seed=message.seed,
            stop=tuple(message.stop),
            ignore_eos=message.ignore_eos,
            logprobs=message.logprobs if message.HasField("logprobs") else None,
        )
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}: {error}") from None


def _decimal(value: float) -> float:
    # A client that wrote 0.7 means the same number here, where it came as float32, as over HTTP, where it did not.
    return float(str(np.float32(value)))
