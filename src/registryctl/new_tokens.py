"""Tokens that are made: their text is printed, or written to a new file, this once."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from registryctl.client import Document, read
from registryctl.errors import MissingError, UsageError
from registryctl.grants import grant_text
from registryctl.session import Session
from wire.duration import ago

_ID = re.compile(r"[a-z2-7]{16}")
"""The public part of a token, as the registry writes it."""


def make_token(session: Session, path: str, request: Document, out: Path | None) -> None:
    """Ask for a token, and print its text or write it to a new file.

    The file is made first: a token whose text cannot be kept would have to be revoked.

    Raises:
        UsageError: the file is there already, or cannot be written.
        RejectedError: the registry refuses the request.
    """
    descriptor = None if out is None else _new_file(out)
    try:
        document = Raw(session.client.ask("POST", path, document=request).content)
        created = read(document)
        if descriptor is not None:
            with os.fdopen(descriptor, "w") as file:
                descriptor = None
                file.write(f"{created['token']}\n")
    except BaseException:
        if out is not None:
            with suppress(OSError):
                out.unlink()
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    _show(session, created, out)


def find_token(session: Session, wanted: str) -> str:
    """Return the id of the token that an operator names by its id, or by its name.

    Raises:
        MissingError: no living token has this name.
        UsageError: several have it, as while one is rotated.
    """
    tokens: list[Document] = read(session.client.get("/v1/tokens"))["tokens"]
    if any(token["id"] == wanted for token in tokens):
        return wanted
    named = [token for token in tokens if token["name"] == wanted and token["state"] == "active"]
    if not named and _ID.fullmatch(wanted):
        # A session has an id too, and is not in the list.
        return wanted
    if not named:
        raise MissingError(f"no living token is called {wanted}", "`registryctl token list --all` has the others")
    if len(named) > 1:
        now = session.client.now
        ids = ", ".join(f"{token['id']} (ends in {ago(token['expires_at'] - now)})" for token in named)
        raise UsageError(f"{len(named)} living tokens are called {wanted}: {ids}", "name one by its id")
    return str(named[0]["id"])


def _new_file(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"--out: {path} is there already", "name a new file, and move it in place then") from None
    except OSError as error:
        fix = "name a new file in a directory of yours"
        raise UsageError(f"--out: {path} cannot be written: {error.strerror or error}", fix) from None


def _show(session: Session, created: dict[str, Any], out: Path | None) -> None:
    screen, details = session.screen, created["details"]
    if session.json:
        shown = created if out is None else {name: value for name, value in created.items() if name != "token"}
        screen.document(Raw(msgspec.json.encode(shown)))
        return
    lasts = ago(details["expires_at"] - session.client.now)
    screen.note(f"token {details['name']} ({details['id']}) is good for {lasts}")
    for grant in details["grants"]:
        screen.note(f"  {grant_text(grant)}")
        if "register" in grant["verbs"] and not grant["addresses"]:
            screen.note("  it may register any address; --address peer, or a network, would narrow that")
    if out is None:
        screen.note("this is the only time that it is shown:")
        screen.say(created["token"])
    else:
        screen.say(f"wrote {out}")
