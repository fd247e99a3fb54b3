"""The rule of ``registrar healthcheck``: healthy after the first registration, and from then on for good."""

_MAX_START = 120.0
"""Seconds after which the process counts as healthy even without a registration."""


class StartupGate:
    """A gate that opens once and stays open; time is an argument.

    An ECS deployment waits until a new task is healthy, and stops old ones then. The gate opens when the first
    registration was accepted and Envoys had a drain_wait to receive it, or after two minutes: an unreachable registry
    must not make ECS replace the fleet. Where this process writes the token of the Envoy beside it, that is waited for
    too: an Envoy that starts without one goes LIVE without endpoints.

    It stays closed while the app has not passed its checks, and while a registry answers and refuses: such a task
    serves nobody, and would take the place of tasks that do.
    """

    def __init__(self, now: float) -> None:
        # Monotonic seconds after which a registry that is away is not waited for any longer.
        self._latest = now + _MAX_START
        self._open = False

    def healthy(
        self,
        now: float,
        registered: float | None,
        drain_wait: float,
        *,
        envoy_ready: bool = True,
        app_ready: bool = True,
        refused: bool = False,
    ) -> bool:
        """Tell whether the gate is open.

        Args:
            now: monotonic seconds.
            registered: when the first registration was accepted, or None.
            drain_wait: seconds after which every Envoy has received it.
            envoy_ready: whether the Envoy beside this process has its token, or needs none.
            app_ready: whether every endpoint passes its checks.
            refused: whether a registry answers and refuses the login or a registration.
        """
        if not self._open and app_ready:
            received = registered is not None and now >= registered + drain_wait
            self._open = (received and envoy_ready) or (now >= self._latest and not refused)
        return self._open
