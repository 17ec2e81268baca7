"""The Python client: three lines to a caption, without torch and without a model."""

from flashsd_ray.client.answers import Caption, Model, Piece, Statistics
from flashsd_ray.client.async_client import AsyncClient
from flashsd_ray.client.async_session import AsyncSession
from flashsd_ray.client.events import (
    AnswerDelta,
    AnswerEvent,
    AnswerFinished,
    AnswerStarted,
    Closed,
    Progress,
    Refused,
    Resumed,
    SessionEvent,
)
from flashsd_ray.client.pictures import Image, Video
from flashsd_ray.client.requests import Turn
from flashsd_ray.client.retries import Retries, Timing
from flashsd_ray.client.sync_client import Client
from flashsd_ray.client.sync_session import Session

__all__ = [
    "AnswerDelta",
    "AnswerEvent",
    "AnswerFinished",
    "AnswerStarted",
    "AsyncClient",
    "AsyncSession",
    "Caption",
    "Client",
    "Closed",
    "Image",
    "Model",
    "Piece",
    "Progress",
    "Refused",
    "Resumed",
    "Retries",
    "Session",
    "SessionEvent",
    "Statistics",
    "Timing",
    "Turn",
    "Video",
]
