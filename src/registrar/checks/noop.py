"""The noop check: it always passes, so the endpoint is registered while the registrar runs."""

from registrar.checks.check import Check, CheckTarget, Options
from registrar.checks.result import Outcome, Result


class NoopOptions(Options, frozen=True, tag="noop"):
    """The options of the noop check, for endpoints that Envoy or another program checks."""

    def check(self, target: CheckTarget) -> Check:  # noqa: ARG002  # nothing is probed
        """Return the check; it does not use the target."""
        return NoopCheck()


class NoopCheck:
    """A check that always passes."""

    async def probe(self) -> Result:
        """Return PASSED."""
        return Result(Outcome.PASSED, "not checked")
