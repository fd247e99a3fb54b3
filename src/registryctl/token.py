"""Tokens that this command sends to registries, and where they come from."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from registryctl.errors import UsageError
from registryctl.token_store import TokenStore

SESSION_PREFIX = "hcs_"
"""Begins the tokens of sessions, which end by a logout; ``hct_`` begins static ones."""
MAX_TOKEN = 4096
"""Characters of a token; a file that is longer is another file."""


class AccessToken(Struct, frozen=True):
    """A token, and its source in words that errors can name."""

    text: str
    source: str

    def __repr__(self) -> str:
        """Name the source, and nothing of the token."""
        return f"AccessToken(from {self.source})"


def parse_token(text: str, source: str) -> AccessToken:
    """Return a token without the white space around it.

    Raises:
        UsageError: the text cannot be sent as a token. The error does not contain it.
    """
    token = text.strip()
    if not token:
        raise UsageError(f"{source} has no token in it", "it has to hold one line, like hct_…")
    if len(token) > MAX_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError(f"{source} holds something else than a token", "it has to hold one line, like hct_…")
    return AccessToken(token, source)


def read_token_file(path: Path, source: str) -> AccessToken:
    """Return the token of a file.

    Raises:
        UsageError: the file cannot be read, or holds no token.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TOKEN + 3)
    except OSError as error:
        raise UsageError(
            f"{source} {path}: {error.strerror or error}", "name a file that you may read, with one token in it"
        ) from None
    return parse_token(content.decode("utf-8", "replace"), f"{source} {path}")


def tokens_for(environ: Mapping[str, str], urls: tuple[str, ...], store: TokenStore) -> dict[str, AccessToken]:
    """Return the token of each URL: that of the environment for all, else its stored one, if any.

    A stored token is sent to the URL that it was stored for, and to no other.

    Raises:
        UsageError: a variable or a file holds no token, or two variables are set.
    """
    text, path = environ.get("REGISTRYCTL_TOKEN", ""), environ.get("REGISTRYCTL_TOKEN_FILE", "")
    if text and path:
        raise UsageError("REGISTRYCTL_TOKEN and REGISTRYCTL_TOKEN_FILE are both set", "unset one of them")
    if text or path:
        given = (
            parse_token(text, "REGISTRYCTL_TOKEN") if text else read_token_file(Path(path), "REGISTRYCTL_TOKEN_FILE")
        )
        return dict.fromkeys(urls, given)
    stored = {url: store.read(url) for url in urls}
    return {url: parse_token(text, str(store.path(url))) for url, text in stored.items() if text is not None}
