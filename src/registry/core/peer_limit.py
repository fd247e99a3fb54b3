"""Limits on how often one peer or principal may do something that costs more than an answer from memory."""

import ipaddress
from collections.abc import Sequence

from msgspec import Struct

from registry.core.endpoint_networks import Network
from registry.errors import LimitError

MAX_KEYS = 10_000
"""Peers or principals whose last requests are remembered. Beyond it all are forgotten, and begin with a whole burst."""
_IPV6_SITE = 64
"""Bits of an IPv6 address that one peer cannot choose freely."""


class ReachedLimit(Struct, frozen=True):
    """How often something was refused at a limit since the start, and when last (monotonic)."""

    count: int
    at: float


class RateLimits:
    """A rate for each key, by the generic cell rate algorithm (ITU-T I.371), which keeps one number for each.

    Args:
        rate: how often a second.
        burst: how many at once after a pause.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        # When the burst of a key is whole again (monotonic). Written by take().
        self._whole_at: dict[str, float] = {}

    def take(self, key: str, now: float) -> float:
        """Count one and return 0; or return the seconds until one is within the limit, and count none.

        Args:
            key: what has a rate of its own.
            now: monotonic time in seconds.
        """
        whole_at = max(self._whole_at.get(key, now), now)
        wait = whole_at - now - (self.burst - 1) / self.rate
        # The difference of large times is exact to a millionth of a second only.
        if wait > 1e-6:
            return wait
        if len(self._whole_at) >= MAX_KEYS and key not in self._whole_at:
            self._whole_at = {other: time for other, time in self._whole_at.items() if time > now}
            if len(self._whole_at) >= MAX_KEYS:
                self._whole_at.clear()
        self._whole_at[key] = whole_at + 1 / self.rate
        return 0.0


class PeerLimit:
    """A rate for each peer.

    Args:
        action: what is limited, for the error: ``logins``.
        rate: how often a second.
        burst: how many at once after a pause.
        exempt: networks without a limit, such as those of proxies; loopback never has one.
    """

    def __init__(self, action: str, rate: float, burst: int, exempt: Sequence[Network] = ()) -> None:
        self._action = action
        self._limits = RateLimits(rate, burst)
        self._exempt = tuple(exempt)

    def check(self, address: str, now: float) -> None:
        """Count one, and return if it is within the limit.

        Args:
            address: the address of the peer.
            now: monotonic time in seconds.

        Raises:
            LimitError: it is beyond the limit, and was not counted.
        """
        peer = peer_of_address(address, self._exempt)
        wait = 0.0 if peer is None else self._limits.take(peer, now)
        if wait:
            raise LimitError(
                f"more than {self._limits.rate:g} {self._action} a second come from {peer}, after {self._limits.burst} "
                "at once; send it again later. If many clients share that address, name it in "
                "REGISTRY_PEER_LIMIT_EXEMPT",
                self._action,
                retry_after=wait,
            )


class PeerSlots:
    """The number of things that each peer holds at a time, such as event streams and held polls.

    Args:
        exempt: networks without a limit, such as those of proxies; loopback never has one.
    """

    def __init__(self, exempt: Sequence[Network] = ()) -> None:
        self._exempt = tuple(exempt)
        self._held: dict[str, int] = {}
        """How much each peer holds; a peer without any is not in it. Written by take() and give()."""
        self._peers: dict[str, str | None] = {}
        """The peers of addresses, because to read an address takes longer than to answer a poll."""

    def has_room(self, address: str, count: int, most: int) -> bool:
        """Return whether a peer may hold ``count`` more, of ``most`` in all."""
        peer = self._peer(address)
        return peer is None or self._held.get(peer, 0) + count <= most

    def take(self, address: str, count: int) -> None:
        """Note that a peer holds ``count`` more."""
        peer = self._peer(address)
        if peer is not None:
            self._held[peer] = self._held.get(peer, 0) + count

    def give(self, address: str, count: int) -> None:
        """Note that a peer holds ``count`` less."""
        peer = self._peer(address)
        if peer is None:
            return
        left = self._held.get(peer, 0) - count
        if left > 0:
            self._held[peer] = left
        else:
            self._held.pop(peer, None)

    def _peer(self, address: str) -> str | None:
        try:
            return self._peers[address]
        except KeyError:
            if len(self._peers) >= MAX_KEYS:
                self._peers.clear()
            peer = self._peers[address] = peer_of_address(address, self._exempt)
            return peer


class ReachedLimits:
    """The limits at which this process has refused something, for those who look after it."""

    def __init__(self) -> None:
        self.reached: dict[str, ReachedLimit] = {}
        """By the name of the limit. Written by note()."""

    def note(self, limit: str, now: float) -> None:
        """Note that something was refused at a limit."""
        before = self.reached.get(limit)
        self.reached[limit] = ReachedLimit(1 if before is None else before.count + 1, now)


def peer_of_address(address: str, exempt: Sequence[Network]) -> str | None:
    """Return the peer that an address belongs to; None without a limit."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        # A Unix socket has no address.
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if parsed.is_loopback or any(parsed in network for network in exempt):
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, _IPV6_SITE), strict=False))
    return str(parsed)
