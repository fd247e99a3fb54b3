"""The command line: ``registrar run`` and ``registrar validate``."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from registrar.configuration import flag, load_settings
from registrar.conversion import render
from registrar.errors import ConfigurationError
from registrar.settings import Settings, reference
from registrar.sidecar import serve
from wire.logs import configure_logs

_BAD_CONFIGURATION = 2
_VERBS = {
    "run": "check the endpoints and keep them registered until SIGTERM",
    "validate": "print the effective settings, or what is wrong with them",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, or 2 for a bad configuration."""
    arguments = vars(_parser().parse_args(argv))
    verb = arguments.pop("verb")
    try:
        settings = load_settings(arguments, os.environ)
        _do(verb, settings)
    except ConfigurationError as error:
        for fault in error.faults:
            sys.stderr.write(f"registrar: {fault}\n")
        return _BAD_CONFIGURATION
    return 0


def _do(verb: str, settings: Settings) -> None:
    if verb == "validate":
        sys.stdout.write(f"{render(settings)}\n")
        return
    configure_logs(settings.log_level)
    asyncio.run(serve(settings))


def _parser() -> argparse.ArgumentParser:
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
        _add_flags(verbs.add_parser(verb, help=summary, description=summary, allow_abbrev=False))
    return parser


def _add_flags(parser: argparse.ArgumentParser) -> None:
    for line in reference():
        default = f" Default: {line.default}." if line.default else ""
        parser.add_argument(
            flag(line.name),
            dest=line.name,
            metavar=f"<{line.type}>",
            default=argparse.SUPPRESS,
            help=f"{line.description}{default}".replace("%", "%%"),
        )


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: its import costs more than the rest of a start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        sys.stdout.write(f"registrar {metadata.version('headcount')}\n")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
