"""`registry serve` with a policy that refuses what a file says, for tests of permissions."""

import os
from pathlib import Path

from registry import process
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cli import main
from registry.errors import NotAllowedError

REFUSALS = "HEADCOUNT_TEST_REFUSALS"
"""The variable that names the file. It holds a verb, and perhaps one endpoint that alone is refused."""


class RefusingPolicy(Policy):
    """Refuses one verb, for every endpoint or for one."""

    def allow(
        self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "", instance_id: str | None = None
    ) -> None:
        """Read the file again, so that a test changes what is refused while the registry runs."""
        del instance_id
        refused, _, only = Path(os.environ[REFUSALS]).read_text().partition(" ")
        if verb == refused and only in ("", endpoint):
            raise NotAllowedError(f"{principal.name} may not {verb} {endpoint or service or 'anything'}")


if __name__ == "__main__":
    # What a process is built with.
    vars(process)["Policy"] = RefusingPolicy
    main()
