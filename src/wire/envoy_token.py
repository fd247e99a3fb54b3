"""The token of an Envoy: the files from which the recommended bootstrap takes it, and which the registrar writes."""

import json

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
