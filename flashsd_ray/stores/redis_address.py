"""The address of a Redis, taken apart; what is shown of it never holds the user or the password."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from flashsd_ray.errors import ConfigError

_DEFAULT_PORT = 6379
_ESCAPING = "special characters in a user or password must be written as %XX"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where a Redis listens and who we are there."""

    shown: str  # for messages
    is_tls: bool = False
    host: str = ""  # empty: a Unix socket
    port: int = _DEFAULT_PORT
    path: str = ""  # of a Unix socket
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def parse_address(
    url: str,  # redis://[user:password@]host[:port][/database], rediss:// alike, unix://[user:password@]/path[?db=0]
) -> RedisAddress:
    """The parts of the address.

    Raises:
        ConfigError: a part is missing, wrong or unknown; the message holds neither user nor password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        raise ConfigError(f"stores.url: the host or port cannot be read; {_ESCAPING}") from None
    if parts.fragment:
        raise ConfigError(f"stores.url must not hold '#'; {_ESCAPING}")
    options = parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.strip("/"):
            raise ConfigError("stores.url: a Unix socket is written as unix:///path/to/socket")
        database = _database(options.pop("db", ["0"])[0])
        shown = f"unix://{parts.path}" + (f"?db={database}" if database else "")
        address = RedisAddress(shown=shown, path=unquote(parts.path), database=database)
    else:
        address = _network_address(parts, port)
    if options:
        raise ConfigError(f"stores.url: unknown option {', '.join(sorted(options))!r}; {_ESCAPING}")
    return replace(
        address,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def with_password_of(
    path: str,  # empty: the address is left as it is
    address: RedisAddress,
) -> RedisAddress:
    """The address with the password that the file holds, without the line break at its end.

    Raises:
        ConfigError: the file cannot be read, or there is a password already; the message holds neither.
    """
    if not path:
        return address
    if address.password is not None:
        raise ConfigError("stores.url and stores.password_file both hold a password")
    try:
        password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"stores.password_file: {path} cannot be read: {reason}") from None
    return replace(address, password=password)


def _network_address(parts: SplitResult, port: int) -> RedisAddress:
    host = parts.hostname
    if not host:
        raise ConfigError(f"stores.url names no host, as in {parts.scheme}://host:{_DEFAULT_PORT}/0")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ConfigError("stores.url: the host is not a valid name") from None
    database = _database(parts.path.strip("/") or "0")
    shown = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}/{database}"
    return RedisAddress(shown=shown, is_tls=parts.scheme == "rediss", host=host, port=port, database=database)


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"stores.url: the database must be a number; {_ESCAPING}")
    return int(text)
