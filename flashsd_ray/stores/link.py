"""Whether a server is reached, and a thread that looks for it while it is not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Link:
    """Knows what keeps the server from being used; nobody who asks this waits for the server.

    While it is lost, one thread tries every ``retry_s`` seconds, so that no call pays for an attempt.
    """

    def __init__(
        self,
        name: str,  # of the server, for the log
        attempt: Callable[[], str],  # tries to reach the server; says what is wrong, "" when nothing is
        retry_s: float,
        *,
        wait: Callable[[float], bool] | None = None,  # sleeps so many seconds; True: the link was closed meanwhile
    ) -> None:
        self._name = name
        self._attempt = attempt
        self._retry_s = retry_s
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._problem = ""
        self._lock = threading.Lock()

    @property
    def problem(self) -> str:
        """A sentence that says why the server is not used; "" while it is."""
        return self._problem

    def open(self) -> None:
        """One attempt was made, and others follow if it failed."""
        problem = self._attempt()
        if problem:
            self.lose(problem)

    def lose(self, problem: str) -> None:
        """The server is not used until an attempt succeeds."""
        with self._lock:
            if self._problem:
                return
            self._problem = problem
            threading.Thread(target=self._retry, name=f"retry {self._name}", daemon=True).start()
        logger.warning("%s", problem)

    def close(self) -> None:
        """The server is not used any more."""
        self._closed.set()
        with self._lock:
            self._problem = f"the connection to {self._name} is closed"

    def _retry(self) -> None:
        while not self._wait(self._retry_s):
            problem = self._attempt()
            with self._lock:
                if self._closed.is_set():
                    return
                self._problem = problem
            if not problem:
                logger.info("%s is reached again", self._name)
                return
