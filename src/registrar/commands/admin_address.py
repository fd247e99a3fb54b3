"""Where the running registrar is asked, for the verbs that ask it."""

import argparse
import os
from urllib.parse import urlencode

from registrar.config.listen import ListenAddress
from registrar.errors import ConfigurationError

_VARIABLE = "REGISTRAR_ADMIN_LISTEN"
DEFAULT = "127.0.0.1:9902"
# What tells registrars apart, by the words of the admin API.
_ADDRESSEE = {
    "service": "REGISTRAR_SERVICE",
    "endpoint": "REGISTRAR_ENDPOINT",
    "instance_id": "REGISTRAR_INSTANCE_ID",
    "config": "REGISTRAR_CONFIG",
}


def add_admin_options(parser: argparse.ArgumentParser) -> None:
    """Take the address of the admin interface, and what the registrar is known by that is meant.

    Not by way of the settings: these verbs are called every few seconds, and must work while a file is broken.
    """
    parser.add_argument(
        "--admin-listen",
        dest=_VARIABLE,
        metavar="<address>",
        default=os.environ.get(_VARIABLE) or DEFAULT,
        help=f"Where the running registrar's admin interface listens. Default: {_VARIABLE}, else {DEFAULT}.",
    )
    for key, variable in _ADDRESSEE.items():
        parser.add_argument(
            f"--{key.replace('_', '-')}",
            dest=key,
            metavar="<text>",
            default=os.environ.get(variable, ""),
            help=f"Do nothing if the registrar that answers there has another one. Default: {variable}.",
        )


def admin_address_of(arguments: argparse.Namespace) -> ListenAddress:
    """Return where to ask.

    Raises:
        ConfigurationError: it is no such place.
    """
    try:
        return ListenAddress.parse(vars(arguments)[_VARIABLE])
    except ValueError as error:
        raise ConfigurationError([f"{_VARIABLE}: {error}"]) from error


def addressed_path(arguments: argparse.Namespace, path: str, **query: str) -> str:
    """Return the path of a request that only the registrar answers for which it is meant."""
    known = {key: text for key in _ADDRESSEE if (text := str(vars(arguments)[key]))}
    if "config" in known:
        known["config"] = os.path.realpath(known["config"])
    return f"{path}?{urlencode(known | query)}"
