"""`registry serve` with a policy that refuses what a file says, for tests of permissions."""

import os
from pathlib import Path

from registry import process
from registry.auth.decision import Refusal, Request
from registry.auth.grants import EVERYTHING, Reach
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cli import main
from registry.xds import held_refusals

REFUSALS = "HEADCOUNT_TEST_REFUSALS"
"""The variable that names the file. Its first line is a verb, and perhaps one endpoint that alone is refused.

A second line is the seconds for which a refused poll is held, in place of one to two.
"""
_HOLDS = (held_refusals.MIN_REFUSAL_HOLD, held_refusals.MAX_REFUSAL_HOLD)


class RefusingPolicy(Policy):
    """Refuses one verb, for every endpoint or for one."""

    def __init__(self, *_: object) -> None:
        super().__init__("on")

    def refusal(
        self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "", instance_id: str | None = None
    ) -> Refusal | None:
        """Read the file again, so that a test changes what is refused while the registry runs."""
        first, _, seconds = Path(os.environ[REFUSALS]).read_text().partition("\n")
        refused, _, only = first.partition(" ")
        shortest, longest = (float(seconds), float(seconds)) if seconds else _HOLDS
        vars(held_refusals).update(MIN_REFUSAL_HOLD=shortest, MAX_REFUSAL_HOLD=longest)
        if verb != refused or only not in ("", endpoint):
            return None
        reason = f"{principal.name} may not {verb} {endpoint or service or 'anything'}"
        return Refusal(Request(verb, service, endpoint, instance_id), "forbidden", reason)

    def fingerprint(self, principal: Principal, verb: Verb) -> bytes:
        """Have each heartbeat decided by what the file says now: the file is no part of the principal."""
        return super().fingerprint(principal, verb) + Path(os.environ[REFUSALS]).read_bytes()

    def reach(self, principal: Principal, verb: Verb) -> Reach:
        """Show everything in lists."""
        del principal, verb
        return EVERYTHING

    def can(self, principal: Principal, verb: Verb, service: str = "") -> bool:
        """Show every form."""
        del principal, verb, service
        return True


if __name__ == "__main__":
    # What a process is built with.
    vars(process)["Policy"] = RefusingPolicy
    main()
