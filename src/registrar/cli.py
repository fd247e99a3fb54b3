"""The entry point: it listens for signals before the imports that take most of a start."""

import sys
from collections.abc import Sequence

from registrar import early_signals

_LASTING_VERBS = ("run", "exec")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    verb = "".join(sys.argv[1:2])
    if argv is None and verb in _LASTING_VERBS:
        early_signals.listen(with_app=verb == "exec")
    # Only now: as the first process of a container nothing but a handler makes a signal work.
    from registrar.command_line import run_command  # noqa: PLC0415

    return run_command(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
