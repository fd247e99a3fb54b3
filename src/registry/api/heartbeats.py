"""Heartbeats as every door answers them: one by one, and all of a request together when each merely renews."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, cast

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from registry.api.parameters import decode, endpoint_key
from registry.api.problems import problem_for
from registry.endpoint import Endpoint, Key
from registry.errors import NotFoundError, RegistryError, UnavailableError
from registry.leases import interval
from registry.repetition import digest
from registry.replica import Replica
from wire.address import parse_port, split_endpoint
from wire.model import Beat, BeatAnswer, Grant, Heartbeats, HeartbeatsAnswer, Registration

decode_registration = msgspec.json.Decoder(Registration)
decode_heartbeats = msgspec.json.Decoder(Heartbeats)

_ALONE = 6
"""Parts of /v1/services/{service}/endpoints/{endpoint}, with the empty one in front."""


class _Words(Struct, forbid_unknown_fields=True):
    """``Heartbeats``, each beat unread."""

    beats: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=1000)]


_decode_words = msgspec.json.Decoder(_Words)


class Renewal(Struct, frozen=True):
    """The beats of one request, each of an endpoint of which it says nothing new.

    ``path`` is set for a request that is of one endpoint by its path, and is answered by a grant and no list.
    """

    replica: Replica
    endpoints: list[Endpoint]
    body: bytes
    path: bytes | None = None

    def granted(self) -> bytes:
        """Return the answer once all leases are renewed."""
        grants = [_granted(self.replica, endpoint) for endpoint in self.endpoints]
        if self.path is not None:
            return msgspec.json.encode(grants[0])
        return msgspec.json.encode(HeartbeatsAnswer([BeatAnswer(one.service, one.endpoint, one) for one in grants]))

    async def registered(self, renewed: list[bool], actor: str) -> bytes:
        """Register what had no lease to renew any more, and return the answer.

        Args:
            renewed: for each beat, whether its lease was renewed.
            actor: who asks.

        Raises:
            RegistryError: as for a request that came the long way.
        """
        if self.path is not None:
            beat = _beat_of(self.path, self.body)
            key = endpoint_key(beat.service, beat.endpoint)
            return msgspec.json.encode(await register(self.replica, key, beat.registration, actor))
        beats = decode(decode_heartbeats, self.body).beats
        # Together, as those of the long way: a host whose leases are all gone is one commit and not a thousand.
        lost = [beat for beat, done in zip(beats, renewed, strict=True) if not done]
        registered = iter(await answer_beats(self.replica, lost, actor))
        told = zip(beats, self.endpoints, renewed, strict=True)
        answers = [
            BeatAnswer(beat.service, beat.endpoint, _granted(self.replica, endpoint)) if done else next(registered)
            for beat, endpoint, done in told
        ]
        return msgspec.json.encode(HeartbeatsAnswer(answers))


def renewal_of_one(path: bytes, replica: Replica, body: bytes) -> Renewal | None:
    """Return what a registration by path and body renews; None when it says anything new, or is none at all."""
    if not replica.directory.ready:
        return None
    known = digest(path, body)
    endpoint = replica.repetitions.endpoint(known)
    if endpoint is None:
        try:
            endpoint = _unchanged(replica, _beat_of(path, body))
        except (RegistryError, ValueError):
            return None
        if endpoint is None:
            return None
        replica.repetitions.keep(known, endpoint)
    return Renewal(replica, [endpoint], body, path)


def renewal_of_batch(replica: Replica, body: bytes) -> Renewal | None:
    """Return what a batch renews; None when a beat says anything new, or it is none at all."""
    if not replica.directory.ready:
        return None
    try:
        words = decode(_decode_words, body).beats
        known = [digest(word) for word in words]
        endpoints = list(map(replica.repetitions.endpoint, known))
        # A name that stands there twice, perhaps in other letters, would be read but once.
        if None not in endpoints and body.count(b'"beats"') == 1 and b"\\" not in body:
            return Renewal(replica, cast("list[Endpoint]", endpoints), body)
        beats = decode(decode_heartbeats, body).beats
    except RegistryError:
        return None
    read: list[Endpoint] = []
    for each, beat in zip(known, beats, strict=True):
        endpoint = _unchanged(replica, beat)
        if endpoint is None:
            return None
        replica.repetitions.keep(each, endpoint)
        read.append(endpoint)
    return Renewal(replica, read, body)


def _beat_of(path: bytes, body: bytes) -> Beat:
    parts = path.split(b"/")
    if len(parts) != _ALONE or parts[4] != b"endpoints":
        raise NotFoundError("no path of an endpoint")
    return Beat(parts[3].decode("ascii"), parts[5].decode("ascii"), decode(decode_registration, body))


def _unchanged(replica: Replica, beat: Beat) -> Endpoint | None:
    # Not read as an address, only looked up: what is listed is canonical, and anything else is not found.
    try:
        address, port = split_endpoint(beat.endpoint)
        key = (beat.service, address, parse_port(port))
    except ValueError:
        return None
    found = replica.registrations.unchanged(key, _with_lease(replica, beat.registration))
    # Answered under the name that it goes by; who writes another one takes the long way.
    return found if found is not None and found.name == beat.endpoint else None


async def answer_beats(replica: Replica, beats: Iterable[Beat], actor: str) -> list[BeatAnswer]:
    """Register or renew the endpoints of a batch together, and return the grant or the problem of each.

    Raises:
        UnavailableError: the whole request is to be sent again; by its status a proxy or a client library can tell.
    """
    return await asyncio.gather(*(answer_beat(replica, beat, actor) for beat in beats))


async def answer_beat(replica: Replica, beat: Beat, actor: str) -> BeatAnswer:
    """Register or renew one endpoint of a batch, and return its grant or its problem.

    Raises:
        UnavailableError: as for all of them.
    """
    try:
        key = endpoint_key(beat.service, beat.endpoint)
        return BeatAnswer(beat.service, beat.endpoint, await register(replica, key, beat.registration, actor))
    except UnavailableError:
        raise
    except RegistryError as error:
        return BeatAnswer(beat.service, beat.endpoint, problem=problem_for(error))


async def register(replica: Replica, key: Key, told: Registration, actor: str) -> Grant:
    """Register or renew one endpoint, and return its grant.

    Raises:
        RegistryError: as ``Registrations.register``.
    """
    told = _with_lease(replica, told)
    stored = await replica.registrations.register(key, told, actor)
    return _grant(replica, stored.endpoint, stored.version, told.ttl or replica.settings.lease_ttl)


def _with_lease(replica: Replica, told: Registration) -> Registration:
    return told if told.ttl else replace(told, ttl=replica.settings.lease_ttl)


def _granted(replica: Replica, endpoint: Endpoint) -> Grant:
    """Return the grant of an endpoint whose lease was renewed."""
    version = replica.directory.get(endpoint.service).version
    return _grant(replica, endpoint, version, endpoint.registration.ttl or replica.settings.lease_ttl)


def _grant(replica: Replica, endpoint: Endpoint, version: int, ttl: float) -> Grant:
    return Grant(
        service=endpoint.service,
        endpoint=endpoint.name,
        status=endpoint.status,
        version=version,
        ttl=ttl,
        interval=interval(ttl),
        drain_wait=replica.settings.drain_wait,
    )
