"""The first token of a registry, made beside it by whoever owns its database."""

import asyncio
import getpass
import os
import re
from pathlib import Path

from registry.auth.credential import MAX_TTL
from registry.auth.grants import Grant
from registry.auth.verbs import Verb
from registry.database_url import DatabaseUrl
from registry.errors import BadSettingsError
from registry.store.database import Database
from registry.usecases.audit import note_command
from registry.usecases.credentials import create_token
from wire.duration import parse_duration

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def create_first_token(database_url: DatabaseUrl, timeout: float, name: str, ttl: str) -> str:
    """Make a token with every verb on every service, and return its text.

    Args:
        database_url: of the registry's database, whose schema has to be there.
        timeout: seconds that a statement may take.
        name: of the token.
        ttl: for how long it is good, as people write it.

    Raises:
        BadSettingsError: the name or the duration is not valid.
        InvalidError: a living token has this name.
        UnavailableError: PostgreSQL is away, or has no schema yet.
    """
    if not _NAME.fullmatch(name):
        raise BadSettingsError(f"--name {name!r} has to be 1 to 64 letters, digits, dots, dashes and underscores")
    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise BadSettingsError(f"--ttl: {error}") from None
    if not 0 < seconds <= MAX_TTL:
        raise BadSettingsError(f"--ttl {ttl} is not between a second and ten years")
    return asyncio.run(_create(Database(database_url, connections=1, timeout=timeout), name, seconds))


def write_secret(path: Path, text: str) -> None:
    """Write a secret to a new file that only its owner can read.

    Raises:
        BadSettingsError: the file is there already, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(f"{text}\n")
    except OSError as error:
        raise BadSettingsError(f"--out {path}: {error.strerror}; name a new file in a directory of yours") from None


async def _create(database: Database, name: str, seconds: float) -> str:
    try:
        grants = [Grant(tuple(Verb))]
        maker = f"registry token create by {_user()}"
        created = await create_token(database, name, "operator", grants, networks=(), ttl=seconds, created_by=maker)
        await note_command(database, maker, "token_created", Verb.ADMIN, f"token:{name}")
    finally:
        await database.close()
    return created.text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number without a name.
        return str(os.getuid())
