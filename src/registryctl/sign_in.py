"""Login and logout: which token this machine sends to a registry."""

import os
import sys
from getpass import getpass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from registryctl.client import ApiClient
from registryctl.errors import CtlError, MissingError, RejectedError, UsageError
from registryctl.session import Session
from registryctl.token import MAX_TOKEN, SESSION_PREFIX, AccessToken, parse_token
from registryctl.token_store import TokenStore
from wire.address import is_exposed

_VARIABLES = ("REGISTRYCTL_TOKEN", "REGISTRYCTL_TOKEN_FILE")


def read_pasted() -> AccessToken:
    """Return the token that a person pastes unseen, or that is piped in.

    Raises:
        UsageError: it is none.
    """
    if sys.stdin.isatty():
        try:
            return parse_token(getpass("Token (it is not shown): "), "what was pasted")
        except EOFError:
            raise UsageError("no token was pasted", "nothing was stored") from None
    return parse_token(sys.stdin.read(MAX_TOKEN + 3), "standard input")


def log_in(session: Session, token: AccessToken) -> tuple[bytes, list[Path]]:
    """Store a token for each address of the registry once it was accepted; return the whoami and the files.

    Raises:
        RejectedError: the registry does not accept the token.
        MissingError: the registry is of before there were tokens.
        UsageError: it cannot be stored.
    """
    urls, screen = session.settings.urls, session.screen
    for url in urls:
        if is_exposed(url):
            screen.note(f"{url} is plain HTTP: whoever is on the way reads the token; give the registry TLS")
    session.settings = replace(session.settings, tokens=dict.fromkeys(urls, token))
    try:
        document = session.client.get("/v1/whoami")
    except MissingError:
        raise MissingError(f"the registry at {session.client.shown} knows no tokens", "upgrade it first") from None
    problem = msgspec.json.decode(document)["problem"]
    if problem:
        raise RejectedError(f"the registry does not accept it: {problem}", "nothing was stored")
    store = TokenStore(os.environ)
    paths = [store.write(url, token.text) for url in urls]
    for name in _VARIABLES:
        if os.environ.get(name):
            screen.note(f"{name} is set and wins over it")
    return bytes(document), paths


def log_out(session: Session) -> list[str]:
    """Forget the stored tokens of the registry's addresses, and end those that are sessions; return what was done.

    A session that cannot be ended now is forgotten all the same, and ends by itself.
    """
    store = TokenStore(os.environ)
    done = []
    for url in session.settings.urls:
        ended = _end_session(session, url, store)
        if store.forget(url):
            done.append(f"the token of {url} is forgotten{ended}")
    done += [f"{name} is still set, and its token is sent" for name in _VARIABLES if os.environ.get(name)]
    return done or ["no token is stored for this address"]


def _end_session(session: Session, url: str, store: TokenStore) -> str:
    """End the stored session of an address at the registry; return in words what came of it."""
    try:
        text = store.read(url)
        token = None if text is None else parse_token(text, str(store.path(url)))
    except CtlError:
        # A file that is not as it should be is deleted like any other.
        return ""
    if token is None or not token.text.startswith(SESSION_PREFIX):
        return "" if token is None else "; it goes on being good: `registryctl token revoke` ends it"
    client = ApiClient(replace(session.settings, urls=(url,), tokens={url: token}))
    try:
        client.ask("POST", "/v1/logout")
    except CtlError as error:
        return f"; its session could not be ended and ends by itself: {error}"
    finally:
        client.close()
    return ", and its session has ended"
