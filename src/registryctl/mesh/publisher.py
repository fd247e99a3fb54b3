"""Publishing of compiled configuration as files or as objects of S3, in phases that go by time."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from meshconfig.bootstrap import DIRECTORY_FETCH_TIMEOUT, bootstrap
from meshconfig.effective import Configuration
from meshconfig.layout import MANIFEST, manifest, node_of, objects, steps
from meshconfig.proof import digest
from meshconfig.resource import Catalog, Snapshot
from meshconfig.snapshot import compile_mesh
from registryctl.errors import UsageError
from wire.atomic_file import PUBLIC, replace_file

MIN_SETTLE = 2.0
"""Seconds of a pause between two phases where nothing asks for more: Envoys look for endpoints of new clusters."""
_PARALLEL = 16
"""Objects that are read or written at a time."""


class Store(Protocol):
    """The place that objects are published to."""

    def read(self, key: str) -> bytes | None:
        """Return an object, or None where there is none."""

    def write(self, key: str, body: bytes) -> None:
        """Write an object whole."""


class Published(Struct, frozen=True):
    """The result of a publish.

    Attributes:
        written: how often each object was written, by its key; in the phases, clusters can be written twice.
        unchanged: objects that were there already.
        left: objects of node.clusters that are defined no more, for somebody to remove when no Envoy reads them.
        failed: why an object could not be read or written, by its key; the later phases of its node.cluster are left
            out then, so that no routes name clusters that are not there.
    """

    written: Mapping[str, int]
    unchanged: int
    left: tuple[str, ...]
    failed: Mapping[str, str]


def compile_for_publish(configuration: Configuration, catalog: Catalog) -> Snapshot:
    """Compile for Envoys that read files, whose ports must not stay closed while a registry is away."""
    return compile_mesh(configuration, catalog, initial_fetch_timeout=DIRECTORY_FETCH_TIMEOUT)


def least_settle(configuration: Configuration, snapshot: Snapshot) -> float:
    """Return the seconds that Envoys need at least between two phases: two polls, and what clusters need to serve."""
    clusters = (each for kinds in snapshot.nodes.values() for each in kinds.get("clusters", {}).values())
    slowest = max((each.settle for each in clusters), default=0.0)
    return max(MIN_SETTLE, 2 * configuration.mesh.registry.refresh_delay, slowest)


def publish(
    store: Store,
    configuration: Configuration,
    snapshot: Snapshot,
    *,
    directory: str = "",
    settle: float | None = None,
    report: Callable[[str], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> Published:
    """Write what differs from the objects that are there, in phases, and the manifest at last.

    It may be interrupted anywhere: what is there then serves, and the next publish goes on from it.

    Args:
        store: where to.
        configuration: the definitions, for the bootstraps.
        snapshot: what they compile to.
        directory: the directory on Envoys' machines that will have the objects as files; empty where a server such as
            itacho answers Envoys' polls with them.
        settle: seconds between two phases; None for the least that there may be.
        report: takes a line of progress at a time.
        pause: waits for so many seconds.

    Raises:
        UsageError: ``settle`` is too short for Envoys to follow.
    """
    least = least_settle(configuration, snapshot)
    if settle is not None and settle < least:
        raise UsageError(
            f"--settle {settle:g}s is too short", f"Envoys of these definitions need {least:g}s between two phases"
        )
    names = (*configuration.callers, *configuration.gateways, *configuration.edges)
    bootstraps = {name: bootstrap(configuration, name, directory=directory) for name in names}
    wanted = objects(snapshot, bootstraps, directory=directory)
    publishing = _Publishing(store, wanted)
    publishing.run(least if settle is None else settle, report, pause)
    publishing.finish(digest(snapshot))
    return publishing.result()


class _Publishing:
    """One publish."""

    def __init__(self, store: Store, wanted: Mapping[str, bytes]) -> None:
        self._store = store
        self._wanted = wanted
        self._failed: dict[str, str] = {}
        self._written: dict[str, int] = {}
        self._left: tuple[str, ...] = ()
        # The objects that are there, as far as they were read or written; None where nothing is.
        self._there: dict[str, bytes | None] = {}

    def run(self, settle: float, report: Callable[[str], None], pause: Callable[[float], None]) -> None:
        """Read what is there and write what differs."""
        self._each([*self._wanted, MANIFEST], self._read)
        # An object that could not be read is not written over: it may have clusters that its routes name.
        wanted = {key: body for key, body in self._wanted.items() if node_of(key) not in self._broken()}
        existing = {key: body for key, body in self._there.items() if body is not None}
        for step in steps(existing, wanted):
            todo = [key for key in step.written if node_of(key) not in self._broken()]
            report(f"{step.name}: {len(todo)} objects")
            self._each(todo, partial(self._write_of, step.written))
            if step.settles:
                report(f"wait {settle:g}s for Envoys")
                pause(settle)

    def finish(self, snapshot: str) -> None:
        """Write the manifest, which names what is there."""
        there = {key: body for key, body in self._there.items() if body is not None and key in self._wanted}
        new = manifest(there, "" if self._failed else snapshot, self._there.get(MANIFEST))
        self._left = new.left
        if self._there.get(MANIFEST) != new.encode():
            self._each([MANIFEST], partial(self._write_of, {MANIFEST: new.encode()}))

    def result(self) -> Published:
        """Return what was done."""
        unchanged = sum(key not in self._written and key not in self._failed for key in self._wanted)
        return Published(self._written, unchanged, self._left, self._failed)

    def _broken(self) -> set[str]:
        return {node_of(key) for key in self._failed}

    def _read(self, key: str) -> None:
        self._there[key] = self._store.read(key)

    def _write_of(self, bodies: Mapping[str, bytes], key: str) -> None:
        body = bodies[key]
        self._store.write(key, body)
        self._there[key] = body
        self._written[key] = self._written.get(key, 0) + 1

    def _each(self, keys: list[str], act: Callable[[str], None]) -> None:
        """Do something for each key; a failure is one of that object alone."""
        with ThreadPoolExecutor(_PARALLEL) as pool:
            for key, error in pool.map(partial(_attempt, act), keys):
                if error:
                    self._failed[key] = error


def _attempt(act: Callable[[str], None], key: str) -> tuple[str, str]:
    try:
        act(key)
    except OSError as error:
        return key, error.strerror or str(error)
    return key, ""


class DirectoryStore:
    """A directory. An object is written aside and renamed, which is how Envoy notices it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, key: str) -> bytes | None:
        """Return a file, or None where there is none."""
        try:
            return (self._path / key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, body: bytes) -> None:
        """Replace a file at once."""
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, body, PUBLIC)


class S3Store:
    """A prefix of a bucket of S3, with the credentials and the endpoint that every AWS SDK looks for.

    Args:
        bucket: the bucket.
        prefix: what every key begins with; may be empty.
        client: a client of boto3.
    """

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:  # noqa: ANN401  # boto3 has no types
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = client

    def read(self, key: str) -> bytes | None:
        """Return an object, or None where there is none.

        Raises:
            OSError: S3 does not answer, or refuses it.
        """
        with _s3_errors():
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
                body: bytes = answer["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
            return body

    def write(self, key: str, body: bytes) -> None:
        """Put an object, which S3 replaces at once.

        Raises:
            OSError: S3 does not answer, or refuses it.
        """
        with _s3_errors():
            self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + key, Body=body, ContentType="application/json"
            )


@contextlib.contextmanager
def _s3_errors() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # an extra

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise OSError(str(error)) from error


@contextlib.contextmanager
def open_store(place: str) -> Iterator[Store]:
    """Yield the store of a directory, or of ``s3://bucket/prefix``.

    Raises:
        UsageError: it cannot be used; of a directory also while somebody else publishes to it.
    """
    if place.startswith("s3://"):
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        yield S3Store(bucket, prefix, _s3_client(bucket))
        return
    path = Path(place)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / ".lock", os.O_CREAT | os.O_RDWR, PUBLIC)
    except OSError as error:
        raise UsageError(f"{place} cannot be written: {error.strerror}") from error
    try:
        _lock(lock, place)
        yield DirectoryStore(path)
    finally:
        os.close(lock)


def _lock(file: int, place: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"somebody else publishes to {place} at the moment", "wait until that has ended") from None


def _s3_client(bucket: str) -> Any:  # noqa: ANN401  # boto3 has no types
    if not bucket:
        raise UsageError("s3:// names no bucket", "write s3://bucket/prefix")
    try:
        import boto3  # noqa: PLC0415  # an extra
        from botocore.config import Config  # noqa: PLC0415
    except ImportError:
        raise UsageError("S3 needs boto3", "install it with: pip install 'headcount[ctl,aws]'") from None
    timeouts = Config(connect_timeout=5, read_timeout=30, max_pool_connections=_PARALLEL)
    return boto3.client("s3", config=timeouts)
