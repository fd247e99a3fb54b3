"""The token of an Envoy: the files from which the recommended bootstrap takes it, and which the registrar writes."""

import json
import os
from contextlib import suppress
from pathlib import Path

from wire.atomic_file import replace_file

SECRET_NAME = "registry-token"  # noqa: S105  # the name that bootstrap and SDS document share
TOKEN_DIRECTORY = "/run/envoy-token"  # noqa: S105  # a path
"""The directory of Envoy's token and its SDS document where none is named. Envoy watches it."""
TOKEN_FILE = "token"  # noqa: S105  # a file's name
"""The file in that directory that holds the token, and nothing else. It is replaced by renaming another file."""
SDS_FILE = "sds.json"
"""The file in that directory that says where the token is. It has to exist when Envoy starts, and never changes."""

_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  # a type


def token_sds(token_directory: str = TOKEN_DIRECTORY, token_file: str = TOKEN_FILE) -> str:
    """Return the SDS document of a token directory, as one line of JSON that names the token's file."""
    source = {"filename": f"{token_directory}/{token_file}"}
    return json.dumps({"resources": [{"@type": _SECRET, "name": SECRET_NAME, "generic_secret": {"secret": source}}]})


def prepare_token_files(token_file: Path, mode: int) -> None:
    """Write an empty token and the SDS document that names it, where they are missing.

    Envoy rejects a document whose file is missing, and warns of it; by an empty file it polls without a token.

    Args:
        token_file: the token's file; its directory exists. A token that is there stays.
        mode: the permissions of what is written.

    Raises:
        OSError: a file cannot be written.
    """
    # Created rather than renamed into place: another process may write the first token at this moment.
    with suppress(FileExistsError):
        descriptor = os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            # Of this file, whatever has its name by now; the umask may have taken something of the mode.
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
    write_token_sds(token_file, mode)


def write_token_sds(token_file: Path, mode: int) -> None:
    """Write the SDS document that names a token's file, unless there is one: an operator's own stays.

    Raises:
        OSError: it cannot be written.
    """
    sds = token_file.with_name(SDS_FILE)
    if not sds.exists():
        replace_file(sds, f"{token_sds(str(token_file.parent), token_file.name)}\n".encode(), mode)
