"""What the supervisor is told of this process's own health: latched, and never the registry's fault."""

_LONGEST_START = 120.0


class StartupGate:
    """Closes once and stays closed; time is an argument.

    An ECS service counts a task in when it is healthy. That is when the first registration was accepted and
    the Envoys had a drain_wait to hear of it, or after two minutes: a registry that is away must not make
    ECS replace the fleet.
    """

    def __init__(self, now: float) -> None:
        self._latest = now + _LONGEST_START
        self._closed = False

    def healthy(self, now: float, registered: float | None, drain_wait: float) -> bool:
        """Tell whether it is closed.

        Args:
            now: monotonic seconds.
            registered: when the first registration was accepted, or None.
            drain_wait: seconds that an Envoy needs to hear of it.
        """
        if not self._closed:
            heard = registered is not None and now >= registered + drain_wait
            self._closed = heard or now >= self._latest
        return self._closed
