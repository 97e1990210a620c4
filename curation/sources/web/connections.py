"""Connections that go where was looked, and end in time.

A host's name is looked up once, every address that it has must be public, and the connection goes to one
of those: there is no second look-up whose answer could differ (DNS rebinding). TLS still checks the name.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpcore2

from curation.errors import BadSource
from curation.sources.web.settings import WebConfig

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port -> its addresses; `OSError` where it has none."""
MAX_ADDRESSES = 4
"""Addresses of one host that are tried."""

_GIVEN_OUT = ipaddress.ip_network("2000::/3")  # all of IPv6 that is for the public net
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        # Of the IANA's registries of special ranges, those that some versions of Python call global.
        *("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        "168.63.129.16/32",  # Azure's agents, outside all such ranges
    )
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def resolved(host: str, port: int) -> list[str]:
    """The addresses of a host, as the machine's own resolver knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Whether an address is one of the public net.

    Private, loopback, link-local (where clouds keep their metadata), shared (CGNAT), multicast and
    reserved ranges are not, nor tunnels (6to4, Teredo); of an IPv6 address that stands for an IPv4 one
    (mapped, NAT64) that one is looked at.
    """
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        elif address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address not in _GIVEN_OUT:
            return False
    is_special = any(address in network for network in _SPECIAL)
    return address.is_global and not address.is_multicast and not is_special


class Clock:
    """When the request in hand must have ended."""

    def __init__(self) -> None:
        self.ends = float("inf")

    def left_s(self, timeout: float | None) -> float:
        """Seconds that one read or write may take.

        Raises:
            httpcore2.ReadTimeout: there is no time left.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the time for this answer is over")
        return left if timeout is None else min(left, timeout)


class _Timed(httpcore2.NetworkStream):
    """A stream each of whose steps ends by the clock: a timeout of one read does not stop a slow drip."""

    def __init__(self, stream: httpcore2.NetworkStream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left_s(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left_s(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        left_s = self._clock.left_s(timeout)
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left_s), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class PinnedConnections(httpcore2.NetworkBackend):
    """Connects to addresses that were looked at.

    Args:
        config: which private hosts are allowed.
        clock: of the client.
        resolve: looks names up.
    """

    def __init__(self, config: WebConfig, clock: Clock, resolve: Resolve) -> None:
        self._config = config
        self._clock = clock
        self._resolve = resolve
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """A connection to one of the host's addresses.

        Raises:
            BadSource: 'private_address'.
            UnknownHost: it has no address.
            httpcore2.NetworkError: none of them answers.
        """
        *others, last = self.addresses(host, port)[:MAX_ADDRESSES]
        for address in others:
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._connected(address, port, timeout, socket_options)
        return self._connected(last, port, timeout, socket_options)

    def _connected(
        self,
        address: str,
        port: int,
        timeout: float | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.NetworkStream:
        left_s = self._clock.left_s(timeout)
        stream = self._plain.connect_tcp(address, port, left_s, None, socket_options)
        return _Timed(stream, self._clock)

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, all of which may be asked."""
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            what = getattr(error, "strerror", None) or error
            raise UnknownHost(f"{host}: {what}", getattr(error, "errno", None)) from error
        if not found:
            raise UnknownHost(f"{host}: no address", None)
        inside = [address for address in found if not is_public(address)]
        if inside and not self._config.allows_private(host, port):
            raise BadSource(
                "private_address",
                f"{host} has the address {inside[0]}, which is no public one; --web.private-hosts names "
                "those that may be asked all the same",
            )
        return found


class UnknownHost(Exception):
    """A host's name has no address, as far as this machine can tell.

    Args:
        seen: for a person.
        number: of the resolver's error.
    """

    def __init__(self, seen: str, number: int | None) -> None:
        super().__init__(seen)
        self.is_final = number != socket.EAI_AGAIN
        """Whether the name is known not to be there, rather than that nobody could say."""
