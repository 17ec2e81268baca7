"""Which hosts pictures may be fetched from: the forms of ``serving.allowed_hosts``.

=================  ===================================================================================
``example.org``    this host at its scheme's own port, where it resolves to public addresses only
``*.example.org``  every host below it, the same way; not ``example.org`` itself
``10.1.2.3``       this address at its scheme's own port, public or not; ``::1`` and ``[::1]`` alike
``media.lan:9000`` this host at this port, wherever its name leads; also ``10.1.2.3:9000``, ``[::1]:9000``
=================  ===================================================================================
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flashsd_ray.errors import ConfigError, RefusedAddressError
from flashsd_ray.media.source import printable

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):(\d{1,5})")
_UNICAST_IPV6 = ipaddress.IPv6Network("2000::/3")
MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedHosts:
    """The entries of ``serving.allowed_hosts``, read."""

    names: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()  # ".example.org"
    literals: frozenset[str] = frozenset()  # IP addresses
    endpoints: frozenset[tuple[str, int]] = frozenset()  # host and port

    @classmethod
    def of(cls, entries: Iterable[str]) -> AllowedHosts:
        """The hosts that the entries name.

        Raises:
            ConfigError: an entry has another form.
        """
        names, suffixes, literals, endpoints = set(), [], set(), set()
        for entry in entries:
            with_port = _WITH_PORT.fullmatch(entry)
            if with_port:
                endpoints.add((_host(with_port[1], entry), _port(with_port[2], entry)))
            elif entry.startswith("*."):
                suffixes.append(f".{_name(entry[2:], entry)}")
            elif (literal := _literal(entry)) is not None:
                literals.add(literal)
            else:
                names.add(_name(entry, entry))
        return cls(
            names=frozenset(names),
            suffixes=tuple(suffixes),
            literals=frozenset(literals),
            endpoints=frozenset(endpoints),
        )

    def may_be_private(
        self,
        host: str,  # as it stands in the address, in ASCII
        port: int,
        *,
        is_default_port: bool,  # the scheme's own
    ) -> bool:
        """Whether the operator named this very host, so that its addresses need not be public.

        Raises:
            RefusedAddressError: nothing may be fetched from there.
        """
        host = _literal(host) or host.lower()
        label = printable(host)
        if (host, port) in self.endpoints:
            return True
        if host in self.literals or host in self.names or host.endswith(self.suffixes):
            if not is_default_port:
                raise RefusedAddressError(f"serving.allowed_hosts allows {label}, but not its port {port}")
            return host in self.literals
        raise RefusedAddressError(f"serving.allowed_hosts does not name {label}")


def require_public(host: str, addresses: Sequence[str]) -> None:
    """Raises RefusedAddressError when one of the addresses is not a public one."""
    if not all(map(is_public, addresses)):
        raise RefusedAddressError(
            f"{host} leads to an address that is not public; serving.allowed_hosts must name it with its port for that"
        )


def is_public(address: str) -> bool:
    """Whether the IP address belongs to one machine somewhere on the internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        # 6to4 and Teredo wrap an IPv4 address that may be private.
        return ip.is_global and ip in _UNICAST_IPV6 and ip.sixtofour is None and ip.teredo is None
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _literal(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def _host(text: str, entry: str) -> str:
    return _literal(text) or _name(text, entry)


def _name(text: str, entry: str) -> str:
    name = text.lower()
    if not name.isascii():
        raise ConfigError(f"serving.allowed_hosts: {entry!r} must be written in ASCII (xn--...)")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"serving.allowed_hosts: {entry!r} is no host, *.host, IP address or host:port")
    return name


def _port(text: str, entry: str) -> int:
    if not 0 < int(text) <= MAX_PORT:
        raise ConfigError(f"serving.allowed_hosts: the port of {entry!r} must be in 1..{MAX_PORT}")
    return int(text)
