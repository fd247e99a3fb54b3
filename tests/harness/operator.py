"""The operator's command, run in this process as a script would run it: no terminal, its own environment."""

import json
import os
from typing import Any

from typer.testing import CliRunner

from registryctl.cli import main


class Said:
    """Output of a run of `registryctl`, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """Return what it printed as JSON."""
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit status {self.status}\n{self.out}\n{self.err}"


def registryctl(url: str | None, *words: str, piped: str = "", **env: str) -> Said:
    """Run `registryctl` with these words against the registry at ``url``; ``env`` is more of its environment.

    Unless ``env`` names a directory it finds no token that was stored on this machine. It reads ``piped`` from its
    standard input.
    """
    own = {"REGISTRYCTL_ACTOR": "ann", "XDG_CONFIG_HOME": os.devnull}
    variables = {**own, **({} if url is None else {"REGISTRYCTL_URL": url}), **env}
    done = CliRunner().invoke(main, list(words), env=variables, input=piped)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)
