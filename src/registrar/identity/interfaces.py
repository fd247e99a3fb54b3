"""The addresses of this machine's interfaces, by ioctl(2) for IPv4 and from /proc for IPv6."""

import array
import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

_SIOCGIFCONF = 0x8912
_NAME_SIZE = 16
# struct ifreq: the name, then a union whose size depends on the pointers'.
_REQUEST_SIZE = _NAME_SIZE + 3 * struct.calcsize("P")
_MAX_ADDRESSES = 1024
_IPV6_TABLE = Path("/proc/net/if_inet6")


def interface_addresses() -> list[tuple[str, str]]:
    """Return (interface, address) pairs, IPv4 first; interfaces that are down have none."""
    return [*_ipv4(), *_ipv6()]


def _ipv4() -> list[tuple[str, str]]:
    buffer = array.array("B", bytes(_REQUEST_SIZE * _MAX_ADDRESSES))
    address, length = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, _SIOCGIFCONF, struct.pack("iP", length, address))
    (used,) = struct.unpack_from("i", answer)
    entries = [buffer[start : start + _REQUEST_SIZE].tobytes() for start in range(0, used, _REQUEST_SIZE)]
    return [
        (
            entry[:_NAME_SIZE].partition(b"\0")[0].decode(errors="replace"),
            socket.inet_ntoa(entry[_NAME_SIZE + 4 : _NAME_SIZE + 8]),
        )
        for entry in entries
    ]


def _ipv6() -> list[tuple[str, str]]:
    try:
        lines = _IPV6_TABLE.read_text("ascii", "replace").splitlines()
    except OSError:
        # A kernel without IPv6 has no such table.
        return []
    fields = [line.split() for line in lines]
    return [(row[5], str(ipaddress.IPv6Address(bytes.fromhex(row[0])))) for row in fields]
