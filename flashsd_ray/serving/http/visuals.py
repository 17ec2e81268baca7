"""The pictures and videos that a request brings or points at: fetched, then decoded in a few threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError, InvalidRequestError, MediaLimitError
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.serving.addresses import fetch
from flashsd_ray.serving.http.errors import PartError
from flashsd_ray.serving.http.fields import ImageUrl, VideoUrl
from flashsd_ray.serving.http.room import Share
from flashsd_ray.types import VisualInput


class VisualReader:
    """Reads the pictures of one request, one after the other, out of one allowance of bytes to fetch and one to decode."""

    def __init__(self, config: Config, share: Share, executor: Executor) -> None:
        self._config = config
        self._share = share
        self._executor = executor
        self._left_bytes = config.serving.max_body_bytes
        self._decoded_bytes = 0

    async def read(
        self,
        source: ImageUrl | VideoUrl,
        param: str,  # where it stands in the request
    ) -> VisualInput:
        """The decoded frames; they are counted among the bytes that the request holds.

        Raises:
            PartError: the picture cannot be had, or there is no room for it.
        """
        try:
            return await self._read(source, param)
        except FlashSDError as error:
            raise PartError(error, param) from error

    async def _read(self, source: ImageUrl | VideoUrl, param: str) -> VisualInput:
        content = await fetch(source.url, self._config.serving, max_bytes=self._left_bytes)
        self._left_bytes -= len(content)
        self._share.take(len(content))

        def decode() -> VisualInput:
            if isinstance(source, ImageUrl):
                return load_visual_bytes(content, param, self._config.media)
            return load_visual_bytes(
                content,
                param,
                self._config.media,
                num_frames=source.num_frames,
                fps=source.fps,
                start_s=source.start,
                end_s=source.end,
            )

        visual = await asyncio.get_running_loop().run_in_executor(self._executor, decode)
        self._share.give_back(len(content))
        if isinstance(source, ImageUrl) and visual.kind != "image":
            raise InvalidRequestError(f"{param} is a video or an animation; send it as a video_url")
        self._count(visual)
        return visual

    def _count(self, visual: VisualInput) -> None:
        num_bytes, limit = visual.frames.nbytes, self._config.media.max_decoded_bytes
        self._decoded_bytes += num_bytes
        if self._decoded_bytes > limit:
            raise MediaLimitError(
                f"{visual.source}: all pictures up to here need more than media.max_decoded_bytes ({limit})"
            )
        self._share.take(num_bytes)
