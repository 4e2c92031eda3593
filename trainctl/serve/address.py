"""The address that is served: bound before anything is promised, and the names by which browsers may call it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

from trainctl.errors import MachineError, UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Sockets that listen on `host` and `port`, and the host names that belong to them, in small letters."""

    host: str
    port: int
    sockets: tuple[socket.socket, ...]
    names: frozenset[str]
    local: bool
    """True if nobody outside this machine can reach it."""

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        numbers = [each.getsockname()[0] for each in self.sockets]
        host = socket.gethostname() if any(ipaddress.ip_address(each).is_unspecified for each in numbers) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def bind(host: str, port: int) -> Address:
    """Take the address; port 0 is any free one.

    UsageError if there is no such host, or it is not this machine; MachineError if the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host}: there is no such host ({error})", "127.0.0.1 is this machine alone") from None
    sockets: list[socket.socket] = []
    for family, _, _, _, where in found:
        try:
            sockets.append(_listen(family, str(where[0]), port))
        except OSError as error:
            # A name may stand for an address of a kind that this machine lacks, as ::1 without IPv6.
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and (sockets or where is not found[-1][4]):
                continue
            for opened in sockets:
                opened.close()
            raise _explained(error, host, port) from None
        port = sockets[0].getsockname()[1]
    numbers = [each.getsockname()[0] for each in sockets]
    local = all(ipaddress.ip_address(number).is_loopback for number in numbers)
    return Address(host, port, tuple(sockets), _names(host, numbers), local)


def _listen(family: int, number: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        opened.bind((number, port))
        opened.listen(128)
    except OSError:
        opened.close()
        raise
    return opened


def _explained(error: OSError, host: str, port: int) -> UsageError | MachineError:
    if error.errno == errno.EADDRINUSE:
        return MachineError(
            f"port {port} of {host} is taken", "name another one: --port 8001, or --port 0 for a free one"
        )
    if error.errno == errno.EACCES:
        return MachineError(f"port {port} of {host} is not allowed", "ports from 1024 on need no rights: --port 8000")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host} is no address of this machine", "--host 0.0.0.0 means all of them")
    return MachineError(f"cannot serve on {host}, port {port}: {error.strerror or error}")


def _names(host: str, numbers: list[str]) -> frozenset[str]:
    """Names that a browser may use for it. A page elsewhere that makes its own name point here is not among them."""
    names = {host, *numbers}
    known = [ipaddress.ip_address(number) for number in numbers]
    if any(number.is_loopback or number.is_unspecified for number in known):
        names |= set(LOOPBACK)
    if not all(number.is_loopback for number in known):
        names |= {socket.gethostname(), socket.getfqdn()}
    if any(number.is_unspecified for number in known):
        import psutil

        names |= {each.address.partition("%")[0] for every in psutil.net_if_addrs().values() for each in every}
    return frozenset(name.lower() for name in names if name)
