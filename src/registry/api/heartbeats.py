"""Heartbeats as every door answers them: one by one, and all of a request together when each merely renews."""

import asyncio
from collections.abc import Iterable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from registry.api.parameters import decode, endpoint_key
from registry.api.problems import problem_for
from registry.endpoint import Endpoint, Key
from registry.errors import RegistryError, UnavailableError
from registry.leases import interval
from registry.registrations import Stored
from registry.replica import Replica
from wire.address import parse_port, split_endpoint
from wire.model import Beat, BeatAnswer, Grant, Heartbeats, HeartbeatsAnswer, Registration

decode_registration = msgspec.json.Decoder(Registration)
decode_heartbeats = msgspec.json.Decoder(Heartbeats)

_ALONE = 6
"""Parts of /v1/services/{service}/endpoints/{endpoint}, with the empty one in front."""


class Renewal(Struct, frozen=True):
    """The beats of one request, each of an endpoint of which it says nothing new.

    ``alone`` says that the request is of one endpoint by its path, and is answered by a grant and no list.
    """

    replica: Replica
    beats: list[Beat]
    endpoints: list[Endpoint]
    alone: bool

    def granted(self) -> bytes:
        """Return the answer once all leases are renewed."""
        grants = [self._grant(endpoint) for endpoint in self.endpoints]
        if self.alone:
            return msgspec.json.encode(grants[0])
        told = zip(self.beats, grants, strict=True)
        return msgspec.json.encode(
            HeartbeatsAnswer([BeatAnswer(beat.service, beat.endpoint, grant) for beat, grant in told])
        )

    async def registered(self, renewed: list[bool], actor: str) -> bytes:
        """Register what had no lease to renew any more, and return the answer.

        Args:
            renewed: for each beat, whether its lease was renewed.
            actor: who asks.

        Raises:
            RegistryError: as for a request that came the long way.
        """
        if self.alone:
            (beat,) = self.beats
            key = endpoint_key(beat.service, beat.endpoint)
            return msgspec.json.encode(await register(self.replica, key, beat.registration, actor))
        # Together, as those of the long way: a host whose leases are all gone is one commit and not a thousand.
        lost = [beat for beat, done in zip(self.beats, renewed, strict=True) if not done]
        registered = iter(await answer_beats(self.replica, lost, actor))
        told = zip(self.beats, self.endpoints, renewed, strict=True)
        answers = [
            BeatAnswer(beat.service, beat.endpoint, self._grant(endpoint)) if done else next(registered)
            for beat, endpoint, done in told
        ]
        return msgspec.json.encode(HeartbeatsAnswer(answers))

    def _grant(self, endpoint: Endpoint) -> Grant:
        ttl = endpoint.registration.ttl or self.replica.settings.lease_ttl
        return _grant(self.replica, self.replica.registrations.stored(endpoint), ttl)


def renewal_of_one(path: bytes, replica: Replica, body: bytes) -> Renewal | None:
    """Return what a registration by path and body renews; None when it says anything new, or is none at all."""
    parts = path.split(b"/")
    if len(parts) != _ALONE or parts[4] != b"endpoints":
        return None
    try:
        told = decode(decode_registration, body)
        beat = Beat(parts[3].decode("ascii"), parts[5].decode("ascii"), told)
    except (RegistryError, UnicodeDecodeError):
        return None
    return _renewal(replica, [beat], alone=True)


def renewal_of_batch(replica: Replica, body: bytes) -> Renewal | None:
    """Return what a batch renews; None when a beat says anything new, or it is none at all."""
    try:
        heartbeats = decode(decode_heartbeats, body)
    except RegistryError:
        return None
    return _renewal(replica, heartbeats.beats, alone=False)


def _renewal(replica: Replica, beats: list[Beat], *, alone: bool) -> Renewal | None:
    endpoints = []
    for beat in beats if replica.directory.ready else ():
        endpoint = _unchanged(replica, beat)
        if endpoint is None:
            return None
        endpoints.append(endpoint)
    return Renewal(replica, beats, endpoints, alone) if endpoints else None


def _unchanged(replica: Replica, beat: Beat) -> Endpoint | None:
    # Not read as an address, only looked up: what is listed is canonical, and anything else is not found.
    try:
        address, port = split_endpoint(beat.endpoint)
        key = (beat.service, address, parse_port(port))
    except ValueError:
        return None
    return replica.registrations.unchanged(key, _with_lease(replica, beat.registration))


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
    return _grant(replica, stored, told.ttl or replica.settings.lease_ttl)


def _with_lease(replica: Replica, told: Registration) -> Registration:
    return told if told.ttl else replace(told, ttl=replica.settings.lease_ttl)


def _grant(replica: Replica, stored: Stored, ttl: float) -> Grant:
    return Grant(
        service=stored.endpoint.service,
        endpoint=stored.endpoint.name,
        status=stored.endpoint.status,
        version=stored.version,
        ttl=ttl,
        interval=interval(ttl),
        drain_wait=replica.settings.drain_wait,
    )
