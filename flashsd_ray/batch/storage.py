"""Files by address, on this machine or in object storage: read, listed, and written so that nobody sees half a file.

An address is a local path, or ``s3://bucket/key``, ``gs://``, ``hf://``, or any other scheme that fsspec knows. Keys are
taken as they are written: no character in them is special. Access keys and regions come from where each storage's own
tools look for them.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from pyarrow import fs

from flashsd_ray.errors import ConfigError, StorageError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
NATIVE = ("s3", "gs", "gcs")  # schemes that pyarrow brings along
BUFFER_BYTES = 2**20
SPOOLED_BYTES = 16 * 2**20  # of a file for object storage, before it goes through the disk


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing says about one file or directory."""

    name: str  # within the directory that was listed
    is_directory: bool


@dataclass(frozen=True, slots=True)
class Location:
    """A file or a directory, by its address; nothing is opened before it is asked for."""

    address: str

    @classmethod
    def at(cls, address: str) -> Location:
        """The location that a user named; a path of this machine is made absolute, as workers may stand elsewhere."""
        if SCHEME.match(address) and not address.startswith("file://"):
            return cls(address)
        return cls(os.path.abspath(address.removeprefix("file://")))  # noqa: PTH100 (links in it stay)

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return SCHEME.match(self.address) is None

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The directory that it lies in."""
        return Location(self.address.rstrip("/").rpartition("/")[0] or "/")

    def child(self, name: str) -> Location:
        """What has this name, perhaps with slashes, below this directory; an absolute path or address stands alone."""
        if name.startswith("/") or SCHEME.match(name):
            return Location(name)
        return Location(f"{self.address.rstrip('/')}/{name}")

    def size_bytes(self) -> int | None:
        """Length of the file; None where there is no file.

        Raises:
            StorageError: the storage does not answer.
            ConfigError: its package is not installed.
        """
        info = self._info()
        return int(info.size or 0) if info.type is fs.FileType.File else None

    def is_directory(self) -> bool:
        """Whether it is there and is a directory; raises as ``size_bytes``."""
        return bool(self._info().type is fs.FileType.Directory)

    def written_s(self) -> float | None:
        """When the file was written, in seconds since 1970; None where the storage does not say; raises as above."""
        time = self._info().mtime
        return None if time is None else float(time.timestamp())

    def entries(self) -> Iterator[Entry]:
        """What the directory holds, in no order; nothing where it is missing.

        Raises:
            StorageError: it cannot be listed.
            ConfigError: the package of its storage is not installed.
        """
        if self.is_local:
            yield from self._local_entries()
            return
        filesystem, path = self._resolved()
        with _failures(self.address, "cannot be listed"):
            infos = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        for info in infos:
            yield Entry(name=info.base_name, is_directory=info.type is fs.FileType.Directory)

    def open(self) -> Any:
        """The file, open for reading at any place; a pyarrow ``NativeFile``.

        Raises:
            StorageError: it cannot be opened.
            ConfigError: the package of its storage is not installed.
        """
        filesystem, path = self._resolved()
        with _failures(self.address, "cannot be opened"):
            return filesystem.open_input_file(path)

    def open_lines(self) -> Any:
        """The file, open for reading once from its beginning, unpacked if its name ends in .gz, .bz2, .zst or the like.

        Raises:
            StorageError: it cannot be opened.
            ConfigError: the package of its storage is not installed.
        """
        filesystem, path = self._resolved()
        with _failures(self.address, "cannot be opened"):
            return io.BufferedReader(filesystem.open_input_stream(path), BUFFER_BYTES)

    def read(self) -> bytes:
        """All bytes of the file; raises as ``open``."""
        with self.open() as file, _failures(self.address, "cannot be read"):
            return bytes(file.read())

    def write(self, content: bytes) -> None:
        """The file has this content; raises as ``writing``."""
        with self.writing() as file:
            file.write(content)

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """A file to be filled; at the end, and not before, it stands at the address, its directories with it.

        Whoever reads there meanwhile, or after a crash, sees what was there before.

        Raises:
            StorageError: it cannot be written.
            ConfigError: the package of its storage is not installed.
        """
        if self.is_local:
            with _failures(self.address, "cannot be written"), _replacing(Path(self.address)) as file:
                yield file
            return
        filesystem, path = self._resolved()
        with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as spool:
            yield spool
            spool.seek(0)
            # Object storage shows a key when its upload is complete.
            with _failures(self.address, "cannot be written"), filesystem.open_output_stream(path) as stream:
                shutil.copyfileobj(spool, stream, BUFFER_BYTES)

    def remove(self) -> None:
        """The file is not there."""
        filesystem, path = self._resolved()
        with _failures(self.address, "cannot be removed"), suppress(FileNotFoundError):
            filesystem.delete_file(path)

    def _info(self) -> Any:
        filesystem, path = self._resolved()
        with _failures(self.address, "cannot be looked at"):
            return filesystem.get_file_info(path)

    def _resolved(self) -> tuple[Any, str]:
        match = SCHEME.match(self.address)
        if match is None:
            return fs.LocalFileSystem(), os.path.abspath(self.address)  # noqa: PTH100
        scheme, rest = match.groups()
        bucket, slash, key = rest.partition("/")
        filesystem, root = _filesystem(scheme.lower(), bucket)
        return filesystem, f"{root.rstrip('/')}{slash}{key}"

    def _local_entries(self) -> Iterator[Entry]:
        with (
            _failures(self.address, "cannot be listed"),
            suppress(FileNotFoundError),
            os.scandir(self.address) as found,
        ):
            for entry in found:
                # A link to a directory could lead back up.
                yield Entry(name=entry.name, is_directory=entry.is_dir(follow_symlinks=False))


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _failures(address: str, problem: str) -> Iterator[None]:
    """What a storage raises inside is raised as a StorageError that names the address."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"{address}: does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StorageError(f"{address}: {problem}: {reason}") from error


@lru_cache(maxsize=64)
def _filesystem(scheme: str, bucket: str) -> tuple[Any, str]:
    """The file system that a scheme stands for, and the path of the bucket in it."""
    address = f"{scheme}://{bucket}"
    try:
        if scheme in NATIVE:
            native: tuple[Any, str] = fs.FileSystem.from_uri(address)
            return native
        import fsspec

        found, path = fsspec.core.url_to_fs(address)
        return fs.PyFileSystem(fs.FSSpecHandler(found)), path
    except ImportError as error:
        raise ConfigError(f"{address}: a package is missing for {scheme}://: {error}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{address}: cannot be reached: {' '.join(str(error).split())}") from error
