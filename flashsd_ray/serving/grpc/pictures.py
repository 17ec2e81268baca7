"""The pictures of a request, decoded: bytes, raw frames and addresses that the operator allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Protocol

from flashsd_ray.config import MediaConfig, ServingConfig
from flashsd_ray.errors import InvalidRequestError, MediaLimitError
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.serving.addresses import fetch
from flashsd_ray.types import VisualInput
from flashsd_ray.wire.messages.conversation import Picture
from flashsd_ray.wire.messages.frames import check_frame_list, raw_image, video_of_frames
from flashsd_ray.wire.v1 import captioning_pb2 as pb


class Fetch(Protocol):
    """Gets what an address leads to, where the operator allows it."""

    def __call__(self, url: str, config: ServingConfig, *, max_bytes: int) -> Awaitable[bytes]:
        """The content."""
        ...


async def load_pictures(
    pictures: Iterable[Picture], serving: ServingConfig, media: MediaConfig, *, fetch: Fetch = fetch
) -> list[VisualInput]:
    """The decoded pictures of one request, in order; decoding runs in threads, one picture at a time.

    Raises:
        InvalidRequestError: one is not what it says, is damaged, or lies where the operator does not allow it.
        MediaLimitError: one exceeds a limit, or all together do: ``serving.max_body_bytes`` holds for everything that
            is fetched, ``media.max_decoded_bytes`` for everything that is decoded.
    """
    loading = _Loading(serving, media, fetch)
    return [await loading.one(picture) for picture in pictures]


class _Loading:
    """The pictures of one request, and what they have used up so far."""

    def __init__(self, serving: ServingConfig, media: MediaConfig, fetch: Fetch) -> None:
        self._serving, self._media, self._fetch = serving, media, fetch
        self._fetched_bytes = self._decoded_bytes = 0

    async def one(self, picture: Picture) -> VisualInput:
        message, where = picture.message, picture.where
        if isinstance(message, pb.Image):
            return await self._image(message, where)
        if message.WhichOneof("source") == "frames":
            return await self._frames(message, where)
        return await self._video(message, where)

    async def _image(self, message: pb.Image, where: str) -> VisualInput:
        if message.WhichOneof("source") == "raw":
            return self._counted(await asyncio.to_thread(raw_image, message.raw, f"{where}.raw", self._media))
        data = await self._content(message, where)
        visual = await asyncio.to_thread(load_visual_bytes, data, where, self._media)
        if visual.kind != "image":
            raise InvalidRequestError(f"{where} is a video or an animation; send it as a video")
        return self._counted(visual)

    async def _video(self, message: pb.Video, where: str) -> VisualInput:
        visual = await asyncio.to_thread(
            load_visual_bytes,
            await self._content(message, where),
            where,
            self._media,
            num_frames=message.num_frames or None,
            fps=message.fps or None,
            start_s=message.start_s if message.HasField("start_s") else None,
            end_s=message.end_s if message.HasField("end_s") else None,
        )
        return self._counted(visual)

    async def _frames(self, message: pb.Video, where: str) -> VisualInput:
        check_frame_list(message, where, self._media)
        where, frames = f"{where}.frames", message.frames
        images = [await self._image(image, f"{where}.frames[{index}]") for index, image in enumerate(frames.frames)]
        return await asyncio.to_thread(video_of_frames, images, frames.timestamps_s, where, self._media)

    async def _content(self, message: pb.Image | pb.Video, where: str) -> bytes:
        source = message.WhichOneof("source")
        if source == "encoded":
            return message.encoded
        if source != "url":
            raise InvalidRequestError(f"{where} has no source")
        left = self._serving.max_body_bytes - self._fetched_bytes
        data = await self._fetch(message.url, self._serving, max_bytes=left)
        self._fetched_bytes += len(data)
        return data

    def _counted(self, visual: VisualInput) -> VisualInput:
        self._decoded_bytes += visual.frames.nbytes
        if self._decoded_bytes > self._media.max_decoded_bytes:
            raise MediaLimitError(
                f"{visual.source}: the pictures of the request up to here need more than "
                f"media.max_decoded_bytes ({self._media.max_decoded_bytes})"
            )
        return visual
