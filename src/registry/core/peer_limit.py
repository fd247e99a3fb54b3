"""Limits on how often one peer or principal may do something that costs more than an answer from memory."""

import ipaddress
from collections.abc import Sequence

from registry.core.endpoint_networks import Network
from registry.errors import LimitError

MAX_KEYS = 10_000
"""Peers or principals whose last requests are remembered. Beyond it all are forgotten, and begin with a whole burst."""
_IPV6_SITE = 64
"""Bits of an IPv6 address that one peer cannot choose freely."""


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
        peer = self._peer_of(address)
        wait = 0.0 if peer is None else self._limits.take(peer, now)
        if wait:
            raise LimitError(
                f"more than {self._limits.rate:g} {self._action} a second come from {peer}, after {self._limits.burst} "
                "at once; send it again later. If many clients share that address, name the proxy in "
                "REGISTRY_TRUSTED_PROXIES",
                self._action,
                retry_after=wait,
            )

    def _peer_of(self, address: str) -> str | None:
        """Return the peer that an address belongs to; None without a limit."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            # A Unix socket has no address.
            return None
        if isinstance(parsed, ipaddress.IPv6Address):
            parsed = parsed.ipv4_mapped or parsed
        if parsed.is_loopback or any(parsed in network for network in self._exempt):
            return None
        if isinstance(parsed, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((parsed, _IPV6_SITE), strict=False))
        return str(parsed)
