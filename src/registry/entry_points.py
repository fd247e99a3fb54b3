"""What `registry` and `registryctl` start with: the command line, or the name of the extra that it lacks.

`pip install headcount` installs both commands, and only what the sidecar needs. This module imports nothing else.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_NOT_INSTALLED = 2
_OWN = {"registry", "registrar", "wire"}


def registry() -> None:
    """Run the registry's command line."""
    with _extra("registry", "demo" if "demo" in sys.argv[1:2] else "server"):
        from registry.cli import main  # noqa: PLC0415  # it needs the extra

        main()


def registryctl() -> None:
    """Run the operator's command line."""
    with _extra("registryctl", "ctl"):
        from registry.ctl.cli import main  # noqa: PLC0415  # it needs the extra

        main()


@contextmanager
def _extra(command: str, extra: str) -> Iterator[None]:
    """Turn a package that is not installed into a sentence and exit status 2; a module of our own is a defect."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _OWN or not missing:
            raise
        sys.stderr.write(
            f"{command}: the package {missing} is not installed; `{command}` needs the extra {extra}: "
            f"pip install 'headcount[{extra}]'\n"
        )
        raise SystemExit(_NOT_INSTALLED) from None
