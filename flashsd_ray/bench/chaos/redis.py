"""A Redis of this measurement's own, which can be restarted and stopped for a while."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from flashsd_ray.errors import ConfigError

READY_LOOK_S = 0.05


class RedisProcess:
    """Runs inside the block, in memory alone; a restart forgets everything."""

    def __init__(self) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise ConfigError("redis-server is not installed; the chaos measurement restarts one of its own")
        self._binary = binary
        self._folder = tempfile.mkdtemp(prefix="flashsd-redis-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What stores.url is set to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisProcess:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def restart(self) -> None:
        """It was killed, and answers again with nothing in it."""
        self._kill()
        self._start()
        await self.answers()

    async def delay(self, seconds: float) -> None:
        """It stood still for so long."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    async def answers(self) -> None:
        """It takes connections."""
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(READY_LOOK_S)

    def _start(self) -> None:
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
        with (Path(self._folder) / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"LC_ALL": "C"}
            )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
