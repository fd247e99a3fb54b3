"""Heartbeats as every door answers them: one by one, and all of a request together when each merely renews.

The fast door has requests read here as a whole, ``Alone`` or as a ``Batch``; what cannot be read is told by the routes.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Annotated, ClassVar, cast

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from registry.cache.heartbeat_cache import digest
from registry.core.endpoint import Endpoint, Key
from registry.core.lease import interval
from registry.errors import NotFoundError, RegistryError, UnavailableError
from registry.http.parameters import decode, endpoint_key
from registry.http.problems import problem_for
from registry.process import RegistryProcess
from wire.address import parse_port, split_endpoint
from wire.model import Beat, BeatAnswer, Grant, Heartbeats, HeartbeatsAnswer, Registration

decode_registration = msgspec.json.Decoder(Registration)
decode_heartbeats = msgspec.json.Decoder(Heartbeats)

ENDPOINT = "/v1/services/{service}/endpoints/{endpoint}"
BATCH = "/v1/heartbeats"


class _Words(Struct, forbid_unknown_fields=True):
    """``Heartbeats``, each beat unread."""

    beats: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=1000)]


_decode_words = msgspec.json.Decoder(_Words)


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
        beat = _beat_of(self.url, self.body)
        key = endpoint_key(beat.service, beat.endpoint)
        return msgspec.json.encode(await register(self.process, key, beat.registration, actor))


class Batch(Struct, frozen=True):
    """The heartbeats of one request.

    ``known`` has all their endpoints when nothing new is said of any, and is empty otherwise.
    """

    method: ClassVar[str] = "POST"
    route: ClassVar[str] = BATCH
    path: ClassVar[str] = BATCH

    process: RegistryProcess
    body: bytes
    known: list[Endpoint]

    def granted(self) -> bytes:
        """Return the answer once all leases are renewed."""
        grants = [_granted(self.process, endpoint) for endpoint in self.known]
        return msgspec.json.encode(HeartbeatsAnswer([BeatAnswer(one.service, one.endpoint, one) for one in grants]))

    async def registered(self, actor: str, renewed: Sequence[bool] = ()) -> bytes:
        """Register the endpoints, but for those whose lease was renewed, and return the answer.

        Args:
            actor: who asks.
            renewed: for each of ``known``, whether its lease was renewed.

        Raises:
            RegistryError: as for a request that came the long way.
        """
        beats = decode(decode_heartbeats, self.body).beats
        # Together, as those of the long way: a host whose leases are all gone is one commit and not a thousand.
        lost = [beat for beat, done in zip_longest(beats, renewed) if not done]
        registered = iter(await answer_beats(self.process, lost, actor))
        told = zip_longest(beats, self.known, renewed)
        answers = [
            BeatAnswer(beat.service, beat.endpoint, _granted(self.process, endpoint)) if done else next(registered)
            for beat, endpoint, done in told
        ]
        return msgspec.json.encode(HeartbeatsAnswer(answers))


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
            beat = _beat_of(url, body)
            endpoint_key(beat.service, beat.endpoint)
        except (RegistryError, ValueError):
            return None
        endpoint = _unchanged(process, beat)
        if endpoint is None:
            return Alone(process, url, body, [])
        process.heartbeat_cache.keep(words, endpoint)
    return Alone(process, url, body, [endpoint])


def read_batch(process: RegistryProcess, body: bytes) -> Batch | None:
    """Read a batch; None when it is none that could be stored."""
    if not process.cache.ready:
        return None
    try:
        words = decode(_decode_words, body).beats
        known = [digest(word) for word in words]
        endpoints = list(map(process.heartbeat_cache.endpoint, known))
        # A name that stands there twice, perhaps in other letters, would be read but once.
        if None not in endpoints and body.count(b'"beats"') == 1 and b"\\" not in body:
            return Batch(process, body, cast("list[Endpoint]", endpoints))
        beats = decode(decode_heartbeats, body).beats
    except RegistryError:
        return None
    read: list[Endpoint] = []
    for each, beat in zip(known, beats, strict=True):
        endpoint = _unchanged(process, beat)
        if endpoint is None:
            return Batch(process, body, [])
        process.heartbeat_cache.keep(each, endpoint)
        read.append(endpoint)
    return Batch(process, body, read)


def _beat_of(url: bytes, body: bytes) -> Beat:
    _, _, _, service, endpoints, endpoint = url.decode("ascii").split("/")
    if endpoints != "endpoints":
        raise NotFoundError("no path of an endpoint")
    told = decode(decode_registration, body)
    return msgspec.convert({"service": service, "endpoint": endpoint, "registration": told}, Beat)


def _unchanged(process: RegistryProcess, beat: Beat) -> Endpoint | None:
    # Not read as an address, only looked up: what is listed is canonical, and anything else is not found.
    try:
        address, port = split_endpoint(beat.endpoint)
        key = (beat.service, address, parse_port(port))
    except ValueError:
        return None
    found = process.registrations.unchanged(key, _with_lease(process, beat.registration))
    # Answered under the name that it goes by; who writes another one is read each time.
    return found if found is not None and found.name == beat.endpoint else None


async def answer_beats(process: RegistryProcess, beats: Iterable[Beat], actor: str) -> list[BeatAnswer]:
    """Register or renew the endpoints of a batch together, and return the grant or the problem of each.

    Those of one endpoint are taken in their order, each after what became of the one before.

    Raises:
        UnavailableError: the whole request is to be sent again; by its status a proxy or a client library can tell.
    """
    waves: defaultdict[int, list[tuple[int, Beat]]] = defaultdict(list)
    before: Counter[str] = Counter()
    for number, beat in enumerate(beats):
        waves[before[beat.endpoint]].append((number, beat))
        before[beat.endpoint] += 1
    answers: dict[int, BeatAnswer] = {}
    for wave in waves.values():
        numbers, together = zip(*wave, strict=True)
        answered = await asyncio.gather(*(answer_beat(process, beat, actor) for beat in together))
        answers.update(zip(numbers, answered, strict=True))
    return [answers[number] for number in sorted(answers)]


async def answer_beat(process: RegistryProcess, beat: Beat, actor: str) -> BeatAnswer:
    """Register or renew one endpoint of a batch, and return its grant or its problem.

    Raises:
        UnavailableError: as for all of them.
    """
    try:
        key = endpoint_key(beat.service, beat.endpoint)
        return BeatAnswer(beat.service, beat.endpoint, await register(process, key, beat.registration, actor))
    except UnavailableError:
        raise
    except RegistryError as error:
        return BeatAnswer(beat.service, beat.endpoint, problem=problem_for(error))


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
