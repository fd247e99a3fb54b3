"""Heartbeats as every door answers them: one by one, and all of a request together when each merely renews.

The fast door has requests read here as a whole, ``Alone`` or as a ``Batch``; what cannot be read is told by the routes.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Annotated, ClassVar, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from registry.cache.heartbeat_cache import digest
from registry.core.endpoint import Endpoint, Key
from registry.core.lease import interval
from registry.errors import InvalidError, NotFoundError, RegistryError, UnavailableError
from registry.http.parameters import decode, endpoint_key
from registry.http.problems import problem_for
from registry.process import RegistryProcess
from wire.address import parse_port, split_endpoint
from wire.model import (
    MAX_HEARTBEATS,
    DeprecatedHeartbeatBatch,
    DeprecatedHeartbeatResults,
    Grant,
    Heartbeat,
    HeartbeatBatch,
    HeartbeatResult,
    HeartbeatResults,
    Registration,
)

decode_registration = msgspec.json.Decoder(Registration)

ENDPOINT = "/v1/services/{service}/endpoints/{endpoint}"
BATCH = "/v1/heartbeats"


_RawList = Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_HEARTBEATS)]


class _RawBatch(Struct, forbid_unknown_fields=True):
    """A batch in either wording, each heartbeat unread."""

    heartbeats: _RawList | UnsetType = UNSET
    beats: _RawList | UnsetType = UNSET


_decode_raw_batch = msgspec.json.Decoder(_RawBatch)


class Wording(Struct, frozen=True, eq=False):
    """The names that the two lists of ``POST /v1/heartbeats`` have; an answer uses those of its request.

    Attributes:
        key: the request's list, as it stands in the body.
        decoder: reads the request.
        results: type of the answer.
    """

    key: bytes
    decoder: msgspec.json.Decoder[HeartbeatBatch]
    results: type[HeartbeatResults]


_WORDING = Wording(b'"heartbeats"', msgspec.json.Decoder(HeartbeatBatch), HeartbeatResults)
_DEPRECATED_WORDING = Wording(b'"beats"', msgspec.json.Decoder(DeprecatedHeartbeatBatch), DeprecatedHeartbeatResults)


class Alone(Struct, frozen=True):
    """The heartbeat of one endpoint, named by its path.

    ``known`` has the endpoint when nothing new is said of it, and is empty otherwise.
    """

    method: ClassVar[str] = "PUT"
    route: ClassVar[str] = ENDPOINT

    process: RegistryProcess
    url: bytes
    body: bytes
    known: list[Endpoint]

    @property
    def path(self) -> str:
        """Where it was sent to."""
        return self.url.decode("ascii")

    def granted(self) -> bytes:
        """Return the answer once the lease is renewed."""
        return msgspec.json.encode(_granted(self.process, self.known[0]))

    async def registered(self, actor: str, _renewed: Sequence[bool] = ()) -> bytes:
        """Register the endpoint, and return the answer.

        Raises:
            RegistryError: as for a request that came the long way.
        """
        heartbeat = _heartbeat_of(self.url, self.body)
        key = endpoint_key(heartbeat.service, heartbeat.endpoint)
        return msgspec.json.encode(await register(self.process, key, heartbeat.registration, actor))


class Batch(Struct, frozen=True):
    """The heartbeats of one request.

    ``known`` has all their endpoints when nothing new is said of any, and is empty otherwise.
    """

    method: ClassVar[str] = "POST"
    route: ClassVar[str] = BATCH
    path: ClassVar[str] = BATCH

    process: RegistryProcess
    wording: Wording
    body: bytes
    known: list[Endpoint]

    def granted(self) -> bytes:
        """Return the answer once all leases are renewed."""
        grants = [_granted(self.process, endpoint) for endpoint in self.known]
        results = [HeartbeatResult(grant.service, grant.endpoint, grant) for grant in grants]
        return msgspec.json.encode(self.wording.results(results))

    async def registered(self, actor: str, renewed: Sequence[bool] = ()) -> bytes:
        """Register the endpoints, but for those whose lease was renewed, and return the answer.

        Args:
            actor: who asks.
            renewed: for each of ``known``, whether its lease was renewed.

        Raises:
            RegistryError: as for a request that came the long way.
        """
        heartbeats = decode(self.wording.decoder, self.body).heartbeats
        # Together, as those of the long way: a host whose leases are all gone is one commit and not a thousand.
        lost = [heartbeat for heartbeat, done in zip_longest(heartbeats, renewed) if not done]
        registered = iter(await answer_heartbeats(self.process, lost, actor))
        results = [
            HeartbeatResult(heartbeat.service, heartbeat.endpoint, _granted(self.process, endpoint))
            if done
            else next(registered)
            for heartbeat, endpoint, done in zip_longest(heartbeats, self.known, renewed)
        ]
        return msgspec.json.encode(self.wording.results(results))


Beats = Alone | Batch
"""What a request says that can be renewed or registered."""


def read_one(process: RegistryProcess, url: bytes, body: bytes) -> Alone | None:
    """Read a registration by path and body; None when it is none that could be stored."""
    if not process.cache.ready:
        return None
    words = digest(url, body)
    endpoint = process.heartbeat_cache.endpoint(words)
    if endpoint is None:
        try:
            heartbeat = _heartbeat_of(url, body)
            endpoint_key(heartbeat.service, heartbeat.endpoint)
        except (RegistryError, ValueError):
            return None
        endpoint = _unchanged(process, heartbeat)
        if endpoint is None:
            return Alone(process, url, body, [])
        process.heartbeat_cache.keep(words, endpoint)
    return Alone(process, url, body, [endpoint])


def read_batch(process: RegistryProcess, body: bytes) -> Batch | None:
    """Read a batch; None when it is none that could be stored."""
    if not process.cache.ready:
        return None
    try:
        wording, raw = _read_raw_batch(body)
        digests = [digest(heartbeat) for heartbeat in raw]
        endpoints = list(map(process.heartbeat_cache.endpoint, digests))
        # A name that stands there twice, perhaps in other letters, would be read but once.
        if None not in endpoints and body.count(wording.key) == 1 and b"\\" not in body:
            return Batch(process, wording, body, cast("list[Endpoint]", endpoints))
        heartbeats = decode(wording.decoder, body).heartbeats
    except RegistryError:
        return None
    renewed: list[Endpoint] = []
    for each, heartbeat in zip(digests, heartbeats, strict=True):
        endpoint = _unchanged(process, heartbeat)
        if endpoint is None:
            return Batch(process, wording, body, [])
        process.heartbeat_cache.keep(each, endpoint)
        renewed.append(endpoint)
    return Batch(process, wording, body, renewed)


def decode_batch(body: bytes) -> tuple[Wording, HeartbeatBatch]:
    """Read the heartbeats of one request, and how it names them.

    Raises:
        RegistryError: as ``decode``; also for both lists, and for neither.
    """
    wording, _ = _read_raw_batch(body)
    return wording, decode(wording.decoder, body)


def _read_raw_batch(body: bytes) -> tuple[Wording, list[msgspec.Raw]]:
    batch = decode(_decode_raw_batch, body)
    if batch.heartbeats is UNSET:
        if batch.beats is UNSET:
            raise InvalidError("the document lacks the field `heartbeats`", "$")
        return _DEPRECATED_WORDING, batch.beats
    if batch.beats is not UNSET:
        raise InvalidError(
            "the document has both `heartbeats` and `beats`, its deprecated name; send `heartbeats`", "$"
        )
    return _WORDING, batch.heartbeats


def _heartbeat_of(url: bytes, body: bytes) -> Heartbeat:
    _, _, _, service, endpoints, endpoint = url.decode("ascii").split("/")
    if endpoints != "endpoints":
        raise NotFoundError("no path of an endpoint")
    told = decode(decode_registration, body)
    return msgspec.convert({"service": service, "endpoint": endpoint, "registration": told}, Heartbeat)


def _unchanged(process: RegistryProcess, heartbeat: Heartbeat) -> Endpoint | None:
    # Not read as an address, only looked up: what is listed is canonical, and anything else is not found.
    try:
        address, port = split_endpoint(heartbeat.endpoint)
        key = (heartbeat.service, address, parse_port(port))
    except ValueError:
        return None
    found = process.registrations.unchanged(key, _with_lease(process, heartbeat.registration))
    # Answered under the name that it goes by; who writes another one is read each time.
    return found if found is not None and found.name == heartbeat.endpoint else None


async def answer_heartbeats(
    process: RegistryProcess, heartbeats: Iterable[Heartbeat], actor: str
) -> list[HeartbeatResult]:
    """Register or renew the endpoints of a batch together, and return the grant or the problem of each.

    Those of one endpoint are taken in their order, each after what became of the one before.

    Raises:
        UnavailableError: the whole request is to be sent again; by its status a proxy or a client library can tell.
    """
    waves: defaultdict[int, list[tuple[int, Heartbeat]]] = defaultdict(list)
    before: Counter[str] = Counter()
    for number, heartbeat in enumerate(heartbeats):
        waves[before[heartbeat.endpoint]].append((number, heartbeat))
        before[heartbeat.endpoint] += 1
    answers: dict[int, HeartbeatResult] = {}
    for wave in waves.values():
        numbers, together = zip(*wave, strict=True)
        answered = await asyncio.gather(*(answer_heartbeat(process, heartbeat, actor) for heartbeat in together))
        answers.update(zip(numbers, answered, strict=True))
    return [answers[number] for number in sorted(answers)]


async def answer_heartbeat(process: RegistryProcess, heartbeat: Heartbeat, actor: str) -> HeartbeatResult:
    """Register or renew one endpoint of a batch, and return its grant or its problem.

    Raises:
        UnavailableError: as for all of them.
    """
    try:
        key = endpoint_key(heartbeat.service, heartbeat.endpoint)
        return HeartbeatResult(
            heartbeat.service, heartbeat.endpoint, await register(process, key, heartbeat.registration, actor)
        )
    except UnavailableError:
        raise
    except RegistryError as error:
        return HeartbeatResult(heartbeat.service, heartbeat.endpoint, problem=problem_for(error))


async def register(process: RegistryProcess, key: Key, told: Registration, actor: str) -> Grant:
    """Register or renew one endpoint, and return its grant.

    Raises:
        RegistryError: as ``Registrations.register``.
    """
    told = _with_lease(process, told)
    stored = await process.registrations.register(key, told, actor)
    return _grant(process, stored.endpoint, stored.version, told.ttl or process.settings.lease_ttl)


def _with_lease(process: RegistryProcess, told: Registration) -> Registration:
    return told if told.ttl else replace(told, ttl=process.settings.lease_ttl)


def _granted(process: RegistryProcess, endpoint: Endpoint) -> Grant:
    """Return the grant of an endpoint whose lease was renewed."""
    version = process.cache.get(endpoint.service).version
    return _grant(process, endpoint, version, endpoint.registration.ttl or process.settings.lease_ttl)


def _grant(process: RegistryProcess, endpoint: Endpoint, version: int, ttl: float) -> Grant:
    return Grant(
        service=endpoint.service,
        endpoint=endpoint.name,
        status=endpoint.status,
        version=version,
        ttl=ttl,
        interval=interval(ttl),
        drain_wait=process.settings.drain_wait,
    )
