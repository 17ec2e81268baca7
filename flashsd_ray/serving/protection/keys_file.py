"""The file of keys, read again when it changes."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from flashsd_ray.errors import ConfigError
from flashsd_ray.serving.protection.keys import Keyring, parse_keys

logger = logging.getLogger(__name__)

_CHECK_INTERVAL_S = 1.0

# What differs between two versions of a file: when it was written, its size, and which file it is.
_Version = tuple[int, int, int]


class KeysFile:
    """Keys that follow a file; a version that cannot be used leaves the last good one in force.

    The caller sees to it that one thread at a time is in here.
    """

    def __init__(self, path: Path, now_s: float) -> None:
        """Raises ConfigError when the file is missing or holds something else than keys."""
        self._path = path
        self._checked_s = now_s
        self._version = self._stat()
        self._keyring = self._read()

    def keyring(self, now_s: float) -> Keyring:
        """The keys that the file held when it was last looked at, at most a second ago."""
        if now_s - self._checked_s >= _CHECK_INTERVAL_S:
            self._checked_s = now_s
            self._follow()
        return self._keyring

    def _follow(self) -> None:
        version = self._stat()
        if version == self._version:
            return
        self._version = version
        try:
            self._keyring = self._read()
            logger.info("%s was read again: %d keys", self._path, len(self._keyring.owners))
        except ConfigError as error:
            logger.error("the keys from before stay in force: %s", error)

    def _stat(self) -> _Version | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Keyring:
        try:
            with self._path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                keyring = parse_keys(file.read().decode("utf-8-sig"), f"serving.keys_file {self._path}")
        except OSError as error:
            raise ConfigError(f"serving.keys_file {self._path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"serving.keys_file {self._path} is not a UTF-8 text") from None
        if mode & stat.S_IROTH:
            logger.warning("everybody on this machine can read the keys in %s (chmod o-r)", self._path)
        return keyring
