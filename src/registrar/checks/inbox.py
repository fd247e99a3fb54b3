"""Where the states that apps push arrive: the admin API puts them in, the push checks take them."""

from collections import defaultdict
from typing import Protocol

from registrar.checks.result import Outcome

PUSHED = (Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED)


class Receiver(Protocol):
    """A check that is told its state."""

    def receive(self, state: Outcome, detail: str) -> None:
        """Take the newest state."""


class Inbox:
    """The push checks of a process, by service and name."""

    def __init__(self) -> None:
        self._receivers: defaultdict[tuple[str, str], list[Receiver]] = defaultdict(list)

    def register(self, service: str, name: str, receiver: Receiver) -> None:
        """Add a check; those of several endpoints with the same service and name hear the same."""
        self._receivers[service, name].append(receiver)

    def forget(self, check: object) -> None:
        """Take a check out again, when its endpoint is no longer configured; one that never was in is none."""
        for receivers in self._receivers.values():
            receivers[:] = [receiver for receiver in receivers if receiver is not check]

    def receive(self, service: str, state: Outcome, detail: str, name: str = "") -> int:
        """Hand a state to the checks it is for and return how many there are.

        Raises:
            ValueError: an app may not push that state.
        """
        if state not in PUSHED:
            raise ValueError(f"{state} is no state to push; expected one of {', '.join(PUSHED)}")
        receivers = self._receivers.get((service, name), [])
        for receiver in receivers:
            receiver.receive(state, detail)
        return len(receivers)
