"""The console script: it installs signal handlers before the slow imports of the command line."""

import sys
from collections.abc import Sequence

from registrar import early_signals
from wire.standard_files import open_missing_files

_LONG_RUNNING_VERBS = ("run", "exec")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    open_missing_files()
    verb = "".join(sys.argv[1:2])
    if argv is None and verb in _LONG_RUNNING_VERBS:
        early_signals.install_handlers(with_app=verb == "exec")
    # Imported after the handlers: the kernel drops a signal without a handler for PID 1 (pid_namespaces(7)).
    from registrar.command_line import run_command  # noqa: PLC0415

    return run_command(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
