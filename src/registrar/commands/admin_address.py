"""The flags of the verbs that ask a running registrar: its address, and which registrar is meant."""

import argparse
import os
from urllib.parse import urlencode

from registrar.config.listen import ListenAddress
from registrar.errors import ConfigurationError

_VARIABLE = "REGISTRAR_ADMIN_LISTEN"
DEFAULT = "127.0.0.1:9902"
# The identity of the registrar that is meant: query parameters of the admin API, and the variables of their defaults.
_TARGET_VARIABLES = {
    "service": "REGISTRAR_SERVICE",
    "endpoint": "REGISTRAR_ENDPOINT",
    "instance_id": "REGISTRAR_INSTANCE_ID",
    "config": "REGISTRAR_CONFIG",
}


def add_admin_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the address of the admin interface and for the registrar that is meant.

    They do not load the settings: these verbs are called every few seconds, and have to work while a file is invalid.
    """
    parser.add_argument(
        "--admin-listen",
        dest=_VARIABLE,
        metavar="<address>",
        default=os.environ.get(_VARIABLE) or DEFAULT,
        help=f"Address of the running registrar's admin interface. Default: {_VARIABLE}, else {DEFAULT}.",
    )
    for key, variable in _TARGET_VARIABLES.items():
        parser.add_argument(
            f"--{key.replace('_', '-')}",
            dest=key,
            metavar="<text>",
            default=os.environ.get(variable, ""),
            help=f"Refuse if the registrar at that address has another {key.replace('_', ' ')}. Default: {variable}.",
        )


def admin_address_of(arguments: argparse.Namespace) -> ListenAddress:
    """Return the address of the admin interface.

    Raises:
        ConfigurationError: the address is invalid.
    """
    try:
        return ListenAddress.parse(vars(arguments)[_VARIABLE])
    except ValueError as error:
        raise ConfigurationError([f"{_VARIABLE}: {error}"]) from error


def addressed_path(arguments: argparse.Namespace, path: str, **query: str) -> str:
    """Return the path with a query that names the registrar that is meant; another registrar refuses it."""
    target = {key: text for key in _TARGET_VARIABLES if (text := str(vars(arguments)[key]))}
    if "config" in target:
        target["config"] = os.path.realpath(target["config"])
    return f"{path}?{urlencode(target | query)}"
