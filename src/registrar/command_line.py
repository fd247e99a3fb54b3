"""The command line: verbs, and what their errors mean for the exit status."""

import argparse
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from registrar.errors import AdminRefused, AdminUnavailable, AppNotStarted, ConfigurationError

_FAILED = 1
_BAD_CONFIGURATION = 2
_VERBS = {
    "run": "check the endpoints and keep them registered until SIGTERM",
    "exec": "the same, and start the app as a child that ends with it: exec [flags] -- command",
    "healthcheck": "exit 0 when the running registrar is healthy",
    "drain": "take the running registrar's endpoints out of rotation, for good",
    "status": "print what the running registrar knows",
    "validate": "print the effective settings, or what is wrong with them",
    "doctor": "find out what keeps a registrar from working here, and how to mend it",
}


def run_command(argv: Sequence[str]) -> int:
    """Run one verb and return the exit status."""
    given = list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Settings have letters that the locale may not know.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    # What is behind the two dashes is not ours to read.
    own, command = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = _parser(next((word for word in own if word in _VERBS), ""))
    arguments = parser.parse_args(own)
    if bool(command) != (arguments.verb == "exec"):
        parser.error("exec takes a command behind `--`, and the other verbs take none")
    try:
        return _module(arguments.verb).run(arguments, command)
    except ConfigurationError as error:
        for fault in error.faults:
            sys.stderr.write(f"registrar: {fault}\n")
        return _BAD_CONFIGURATION
    except (AdminRefused, AdminUnavailable, AppNotStarted) as error:
        sys.stderr.write(f"registrar: {error}\n")
        return error.status if isinstance(error, AppNotStarted) else _FAILED


def _parser(called: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="registrar",
        description="Checks one instance's endpoints and keeps them registered.",
        epilog="Every flag is also an environment variable: --check-interval is REGISTRAR_CHECK_INTERVAL.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="print the version and exit"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(_VERBS))
    for verb, summary in _VERBS.items():
        told = verbs.add_parser(verb, help=summary, description=summary, allow_abbrev=False)
        if verb == called:
            _module(verb).add_arguments(told)
    return parser


class _Verb(Protocol):
    """A module of ``registrar.commands``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Say what it takes."""

    def run(self, arguments: argparse.Namespace, command: Sequence[str]) -> int:
        """Do it and return the exit status."""


def _module(verb: str) -> _Verb:
    return cast("_Verb", importlib.import_module(f"registrar.commands.{verb}"))


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        # Its import costs more than the rest of a health check.
        from importlib import metadata  # noqa: PLC0415

        sys.stdout.write(f"registrar {metadata.version('headcount')}\n")
        parser.exit()
