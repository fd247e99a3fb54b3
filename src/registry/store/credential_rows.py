"""Rows of credentials and identities: each is fetched in a form that cannot fail, and is read by itself.

A person may have written a row, or a newer version that knows more sources and verbs. A row that cannot be read allows
nothing and hinders no other. So PostgreSQL sends no value that the driver has to understand: not every time is a time
of Python, a database in SQL_ASCII has text in any encoding, and JSON may be nested deeper than Python goes.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, DateTime, Double, LargeBinary, Select, Table, Text, cast, extract, func, select
from sqlalchemy.dialects.postgresql import JSONB

from registry.auth.credential import Credential, Identity, Limits, check_credential, check_identity
from registry.auth.grants import Grant
from registry.errors import RegistryError
from registry.store.rows import moment
from registry.store.tables import credentials, identities

Value = TypeVar("Value", Credential, Identity)

_UNREADABLE = (
    RegistryError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    msgspec.MsgspecError,
)
"""The errors by which a row turns out not to be a credential or an identity."""

_grants = msgspec.json.Decoder(tuple[Grant, ...])
_networks = msgspec.json.Decoder(tuple[str, ...])
_limits = msgspec.json.Decoder(Limits)


def select_credentials() -> Select[Any]:
    """Return a query of credentials, for ``credentials_from``."""
    return select(*_columns(credentials))


def select_identities() -> Select[Any]:
    """Return a query of identities, for ``identities_from``."""
    return select(*_columns(identities))


def credentials_from(rows: Sequence[Any], kind: str, unreadable: dict[str, str]) -> list[Credential]:
    """Return the credentials of those rows that can be read.

    Args:
        rows: of ``select_credentials``.
        kind: what the rows are, for people: ``token``.
        unreadable: gets the others, with the reason.
    """
    return _readable(rows, _credential, unreadable, lambda row: f"{kind} {_shown(row.name)} ({_shown(row.id)})")


def identities_from(rows: Sequence[Any], unreadable: dict[str, str]) -> list[Identity]:
    """Return the identities of those rows that can be read.

    Args:
        rows: of ``select_identities``.
        unreadable: gets the others, with the reason.
    """
    return _readable(rows, _identity, unreadable, lambda row: f"identity {_shown(row.name)}")


def identity_of(row: Any) -> Identity | None:  # noqa: ANN401  # a row of SQLAlchemy
    """Return the identity of a row of ``select_identities``; None if it cannot be read."""
    read = identities_from([row], {})
    return read[0] if read else None


def credential_row(credential: Credential) -> dict[str, Any]:
    """Return the columns of a credential."""
    return {
        "id": credential.id,
        "digest": credential.digest,
        "name": credential.name,
        "kind": credential.kind,
        "grants": _json(credential.grants),
        "networks": _json(credential.networks),
        "created_by": credential.created_by,
        "created_at": moment(credential.created_at),
        "expires_at": moment(credential.expires_at),
        "revoked_at": moment(credential.revoked_at),
        "successor_of": credential.successor_of,
        "used_at": moment(credential.used_at),
        "identity": credential.identity,
        "session_name": credential.session_name,
        "login_at": moment(credential.login_at) if credential.login_at else None,
        "discovers": credential.discovers,
        "parent": credential.parent,
    }


def identity_row(identity: Identity) -> dict[str, Any]:
    """Return the columns of an identity."""
    return {
        "name": identity.name,
        "source": identity.source,
        "match": identity.match,
        "unique_id": identity.unique_id,
        "kind": identity.kind,
        "grants": _json(identity.grants),
        "limits": _json(identity.limits),
        "created_by": identity.created_by,
        "updated_at": moment(identity.updated_at),
    }


def _columns(table: Table) -> list[ColumnElement[Any]]:
    return [_column(column) for column in table.c]


def _column(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column so that any value can be fetched: times as seconds, text and JSON as bytes."""
    if isinstance(column.type, Text | JSONB):
        raw = func.convert_to(cast(column, Text), func.getdatabaseencoding(), type_=LargeBinary)
        return raw.label(column.key)
    if isinstance(column.type, DateTime):
        return cast(extract("epoch", column), Double).label(column.key)
    return column


def _readable(
    rows: Sequence[Any], read: Callable[[Any], Value], unreadable: dict[str, str], describe: Callable[[Any], str]
) -> list[Value]:
    values = []
    for row in rows:
        try:
            values.append(read(row))
        except _UNREADABLE as error:
            unreadable[describe(row)] = str(error) or repr(error)
    return values


def _shown(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


def _json(value: object) -> Any:  # noqa: ANN401  # plain JSON
    return msgspec.to_builtins(value)


def _credential(row: Any) -> Credential:  # noqa: ANN401  # a row of SQLAlchemy
    credential = Credential(
        row.id.decode(),
        bytes(row.digest),
        row.name.decode(),
        row.kind.decode(),
        row.expires_at,
        _grants.decode(row.grants),
        _networks.decode(row.networks),
        row.created_by.decode(),
        row.created_at,
        row.revoked_at,
        row.successor_of.decode(),
        row.used_at,
        row.identity.decode(),
        row.session_name.decode(),
        row.login_at or 0.0,
        row.discovers,
        row.parent.decode(),
    )
    check_credential(credential)
    return credential


def _identity(row: Any) -> Identity:  # noqa: ANN401  # a row of SQLAlchemy
    identity = Identity(
        row.name.decode(),
        row.source.decode(),
        row.match.decode(),
        row.kind.decode(),
        _grants.decode(row.grants),
        row.unique_id.decode(),
        _limits.decode(row.limits),
        row.created_by.decode(),
        row.updated_at,
    )
    check_identity(identity)
    return identity
