"""The inbox of pushed states: the admin API delivers them, the push checks receive them."""

from collections import defaultdict
from typing import Protocol

from registrar.checks.result import Outcome

# The states that an app may push.
PUSHABLE = (Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED)


class Receiver(Protocol):
    """A check that receives pushed states."""

    def receive(self, state: Outcome, detail: str) -> None:
        """Record the newest state."""


class Inbox:
    """The push checks of the process, by service and name."""

    def __init__(self) -> None:
        self._receivers: defaultdict[tuple[str, str], list[Receiver]] = defaultdict(list)

    def register(self, service: str, name: str, receiver: Receiver) -> None:
        """Add a check; checks of several endpoints with one service and name all receive the same states."""
        self._receivers[service, name].append(receiver)

    def unregister(self, check: object) -> None:
        """Remove a check whose endpoint is no longer configured; a check that is not registered is ignored."""
        for receivers in self._receivers.values():
            receivers[:] = [receiver for receiver in receivers if receiver is not check]

    def receive(self, service: str, state: Outcome, detail: str, name: str = "") -> int:
        """Pass a state to the checks of a service and name, and return their number.

        Raises:
            ValueError: the state is not one that apps may push.
        """
        if state not in PUSHABLE:
            raise ValueError(f"state {state} cannot be pushed; expected one of {', '.join(PUSHABLE)}")
        receivers = self._receivers.get((service, name), [])
        for receiver in receivers:
            receiver.receive(state, detail)
        return len(receivers)
