"""Where the running registrar is asked, for the verbs that ask it."""

import argparse
import os

from registrar.errors import ConfigurationError
from registrar.listen import Listen

_VARIABLE = "REGISTRAR_ADMIN_LISTEN"
DEFAULT = "127.0.0.1:9902"


def add_place(parser: argparse.ArgumentParser) -> None:
    """Take the address of the admin interface.

    Not by way of the settings: these verbs are called every few seconds, and must work while a file is broken.
    """
    parser.add_argument(
        "--admin-listen",
        dest=_VARIABLE,
        metavar="<address>",
        default=os.environ.get(_VARIABLE) or DEFAULT,
        help=f"Where the running registrar's admin interface listens. Default: {_VARIABLE}, else {DEFAULT}.",
    )


def place_of(arguments: argparse.Namespace) -> Listen:
    """Return where to ask.

    Raises:
        ConfigurationError: it is no such place.
    """
    try:
        return Listen.parse(vars(arguments)[_VARIABLE])
    except ValueError as error:
        raise ConfigurationError([f"{_VARIABLE}: {error}"]) from error
