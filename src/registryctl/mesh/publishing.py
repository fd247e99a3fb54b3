"""Publishing of a directory's definitions as files or to S3, for Envoys that ask no registry for them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Raw

from meshconfig.resource import Catalog
from registryctl.errors import RejectedError, UnreachableError, UsageError
from registryctl.faults import counted
from registryctl.mesh.definitions import load_directory
from registryctl.mesh.proving import prove
from registryctl.mesh.publisher import Published, compile_for_publish, open_store, publish
from registryctl.mesh.registered import registered_catalog
from registryctl.mesh.words import plural
from registryctl.progress import progress
from registryctl.session import Session

_MAX_KEYS = 3
"""Keys of objects that a line names."""


def publish_directory(
    session: Session, directory: Path, place: str, envoys: Sequence[str], *, settle: float | None, mount: str
) -> int:
    """Prove and publish a directory's definitions, print what was written, and return the exit status.

    Args:
        session: the session of the verb.
        directory: the definitions.
        place: a directory, or ``s3://bucket/prefix``.
        envoys: binaries that have to accept everything; none: it is published unproven.
        settle: seconds between two phases; None for the least that there may be.
        mount: the directory on Envoys' machines that has the files; empty where a server answers with them.
    """
    definitions = load_directory(directory)
    catalog = Catalog()
    if definitions.configuration.gateways:
        with progress(session.screen.err, "reading the registered services, which gateways select from"):
            catalog = registered_catalog(session.client)
    snapshot = compile_for_publish(definitions.configuration, catalog)
    if envoys:
        try:
            result = prove(session, definitions, envoys, snapshot)
        except UsageError as error:
            fix = "name one with --with, or publish what nothing has proven with --unproven"
            raise UsageError(str(error), fix) from None
        if result.proof is None:
            raise RejectedError(
                f"Envoy refuses what these definitions compile to: {counted(result.faults)}; nothing was published",
                details=map(str, result.faults),
            )
    with open_store(place) as store:
        published = publish(
            store,
            definitions.configuration,
            snapshot,
            directory=mount,
            settle=settle,
            report=session.screen.note,
        )
    _report(session, place, published)
    return UnreachableError.status if published.failed else 0


def _report(session: Session, place: str, published: Published) -> None:
    screen = session.screen
    if session.json:
        screen.document(Raw(msgspec.json.encode(published)))
        return
    for line in failure_lines(published.failed):
        screen.say((line, "red"))
    written = plural(len(published.written), "object")
    screen.say(f"{place}: wrote {written}, {published.unchanged} were there already")
    if published.failed:
        screen.say(
            (f"{plural(len(published.failed), 'object')} failed; publish again: it goes on from what is there", "red")
        )


def failure_lines(failed: Mapping[str, str]) -> list[str]:
    """Return a line for each reason of failures; mostly all objects fail for the same one."""
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for key, reason in sorted(failed.items()):
        keys[reason].append(key)
    return [f"{_listed(own)}: {reason}" for reason, own in keys.items()]


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _MAX_KEYS} more" if len(keys) > _MAX_KEYS else ""
    return ", ".join(keys[:_MAX_KEYS]) + more
