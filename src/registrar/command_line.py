"""The command line: it parses the verb and its flags, and turns errors into exit statuses."""

import argparse
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from registrar.errors import AdminRefused, AdminUnavailable, AppNotStarted, ConfigurationError

_FAILED = 1
_BAD_CONFIGURATION = 2
VERBS = {
    "run": "check the endpoints and keep them registered until SIGTERM",
    "exec": "run the registrar with the app as a child process: exec [flags] -- command",
    "healthcheck": "exit 0 when the running registrar is healthy",
    "drain": "take the running registrar's endpoints out of rotation and deregister them",
    "status": "print the state of the running registrar: endpoints, checks and heartbeats",
    "login": "log in once and write the token of the Envoy beside it, before that Envoy starts",
    "bootstrap": "write the part of Envoy's bootstrap that differs between tasks: node id, locality, tag",
    "envoy-setup": "prepare what the Envoy beside it starts from: bootstrap, SDS document, first token",
    "envoy-ready": "wait until the Envoy beside it is live, and exit 0 when it is",
    "validate": "print the effective settings, or every error in them",
    "doctor": "examine this machine or task: settings, address, checks and registries, each with its fix",
}


def run_command(argv: Sequence[str]) -> int:
    """Run one verb and return the exit status."""
    words = list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Settings may contain characters that the locale cannot encode.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    # Everything behind `--` is the app's command and is not parsed.
    own, command = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = build_parser(next((word for word in own if word in VERBS), ""))
    arguments = parser.parse_args(own)
    if bool(command) != (arguments.verb == "exec"):
        parser.error("exec needs a command after `--`: registrar exec [flags] -- command; no other verb takes one")
    try:
        return _module(arguments.verb).run(arguments, command)
    except ConfigurationError as error:
        for fault in error.faults:
            sys.stderr.write(f"registrar: {fault}\n")
        return _BAD_CONFIGURATION
    except (AdminRefused, AdminUnavailable, AppNotStarted) as error:
        sys.stderr.write(f"registrar: {error}\n")
        return error.status if isinstance(error, AppNotStarted) else _FAILED


def build_parser(verb: str) -> argparse.ArgumentParser:
    """Return the parser of all verbs, with the flags of ``verb`` alone: the other modules are not imported."""
    parser = argparse.ArgumentParser(
        prog="registrar",
        description="Checks one instance's endpoints and keeps them registered.",
        epilog="Every flag is also an environment variable: --check-interval is REGISTRAR_CHECK_INTERVAL.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="print the version and exit"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(VERBS))
    for name, summary in VERBS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        subparser = verbs.add_parser(name, help=summary, description=description, allow_abbrev=False)
        if name == verb:
            _module(name).add_arguments(subparser)
    return parser


class _Verb(Protocol):
    """The functions that each module of ``registrar.commands`` has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of the verb."""

    def run(self, arguments: argparse.Namespace, command: Sequence[str]) -> int:
        """Run the verb and return the exit status."""


def _module(verb: str) -> _Verb:
    return cast("_Verb", importlib.import_module(f"registrar.commands.{verb.replace('-', '_')}"))


class _Version(argparse.Action):
    """An argparse action that prints the version of the installed distribution."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        # Imported on demand: the import costs more time than the rest of a health check.
        from importlib import metadata  # noqa: PLC0415

        sys.stdout.write(f"registrar {metadata.version('headcount')}\n")
        parser.exit()
