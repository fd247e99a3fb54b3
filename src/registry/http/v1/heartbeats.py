"""Heartbeats in JSON, as both HTTP fronts read and answer them.

The fast protocol has requests read here as a whole, as a ``SingleRequest`` or a ``BatchRequest``; what cannot be read
is left to the routes, which say what is wrong.
"""

import asyncio
from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated, ClassVar, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from registry.auth.principal import Principal
from registry.cache.heartbeat_cache import digest
from registry.core.endpoint import Endpoint, endpoint_key
from registry.errors import (
    InvalidError,
    NotAllowedError,
    NotFoundError,
    NotOwnerError,
    RegistryError,
    UnauthenticatedError,
)
from registry.http.parameters import decode
from registry.http.problems import problem_for
from registry.usecases.heartbeat import Heartbeats
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


class SingleRequest(Struct, frozen=True):
    """The heartbeat of one endpoint, named by the request's path.

    ``unchanged`` has the endpoint when nothing new is said of it, and is empty otherwise. ``decided``: as in
    ``Heartbeats.renew``.
    """

    method: ClassVar[str] = "PUT"
    route: ClassVar[str] = ENDPOINT

    heartbeats: Heartbeats
    principal: Principal
    url: bytes
    body: bytes
    unchanged: list[Endpoint]
    decided: bool

    @property
    def path(self) -> str:
        """The path that it was sent to."""
        return self.url.decode("ascii")

    def renew(self) -> "asyncio.Future[list[bool]] | None":
        """Renew the lease, as ``Heartbeats.renew``; None when the endpoint has to be registered.

        A renewal that is not allowed is registered too, which refuses and counts it.

        Raises:
            UnavailableError: too many wait already.
        """
        return _renew(self)

    def renewed(self) -> bytes:
        """Return the response once the lease is renewed."""
        return msgspec.json.encode(self.heartbeats.grant(self.unchanged[0]))

    async def register(self, _renewed: Sequence[bool] = ()) -> bytes:
        """Register the endpoint, and return the response.

        Raises:
            RegistryError: as for a request that the application answers.
        """
        heartbeat = _heartbeat_of(self.url, self.body)
        key = endpoint_key(heartbeat.service, heartbeat.endpoint)
        return msgspec.json.encode(await self.heartbeats.register(self.principal, key, heartbeat.registration))


class BatchRequest(Struct, frozen=True):
    """The heartbeats of one request.

    ``unchanged`` has all their endpoints when nothing new is said of any, and is empty otherwise. ``decided``: as in
    ``Heartbeats.renew``.
    """

    method: ClassVar[str] = "POST"
    route: ClassVar[str] = BATCH
    path: ClassVar[str] = BATCH

    heartbeats: Heartbeats
    principal: Principal
    wording: Wording
    body: bytes
    unchanged: list[Endpoint]
    decided: bool

    def renew(self) -> "asyncio.Future[list[bool]] | None":
        """Renew the leases together, as ``Heartbeats.renew``; None when each heartbeat has to be registered.

        That is also the way to refuse some of them and to take the others.

        Raises:
            UnavailableError: too many wait already.
        """
        return _renew(self)

    def renewed(self) -> bytes:
        """Return the response once all leases are renewed."""
        grants = map(self.heartbeats.grant, self.unchanged)
        results = [HeartbeatResult(grant.service, grant.endpoint, grant) for grant in grants]
        return msgspec.json.encode(self.wording.results(results))

    async def register(self, renewed: Sequence[bool] = ()) -> bytes:
        """Register the endpoints, but for those whose lease was renewed, and return the response.

        Args:
            renewed: for each of ``unchanged``, whether its lease was renewed.

        Raises:
            RegistryError: as for a request that the application answers.
        """
        heartbeats = decode(self.wording.decoder, self.body).heartbeats
        # Together, as the application does: a host whose leases are all gone is one commit and not a thousand.
        lost = [heartbeat for heartbeat, done in zip_longest(heartbeats, renewed) if not done]
        registered = iter(await register_batch(self.heartbeats, self.principal, lost))
        results = [
            HeartbeatResult(heartbeat.service, heartbeat.endpoint, self.heartbeats.grant(endpoint))
            if done
            else next(registered)
            for heartbeat, endpoint, done in zip_longest(heartbeats, self.unchanged, renewed)
        ]
        return msgspec.json.encode(self.wording.results(results))


HeartbeatRequest = SingleRequest | BatchRequest
"""A request whose heartbeats can be renewed or registered."""


def _renew(request: HeartbeatRequest) -> "asyncio.Future[list[bool]] | None":
    """Renew the leases of a request; None without any, and when one of them may not be renewed."""
    if not request.unchanged:
        return None
    try:
        return request.heartbeats.renew(request.principal, request.unchanged, decided=request.decided)
    except (UnauthenticatedError, NotAllowedError, NotOwnerError):
        return None


def read_single(heartbeats: Heartbeats, principal: Principal, url: bytes, body: bytes) -> SingleRequest | None:
    """Read a registration from path and body; return None when the application has to refuse it."""
    if not heartbeats.ready:
        return None
    words = digest(heartbeats.fingerprint(principal), url, body)
    endpoint = heartbeats.recognize(words)
    decided = endpoint is not None
    if endpoint is None:
        endpoint = heartbeats.recognize_refused(words)
    if endpoint is None:
        try:
            heartbeat = _heartbeat_of(url, body)
            endpoint_key(heartbeat.service, heartbeat.endpoint)
        except (RegistryError, ValueError):
            return None
        endpoint = heartbeats.unchanged(principal, heartbeat, words)
    unchanged = [] if endpoint is None else [endpoint]
    return SingleRequest(heartbeats, principal, url, body, unchanged, decided)


def read_batch(heartbeats: Heartbeats, principal: Principal, body: bytes) -> BatchRequest | None:
    """Read a batch; None when the application has to read it and to say what is wrong."""
    if not heartbeats.ready:
        return None
    try:
        wording, raw = _read_raw_batch(body)
        fingerprint = heartbeats.fingerprint(principal)
        digests = [digest(fingerprint, heartbeat) for heartbeat in raw]
        recognized = list(map(heartbeats.recognize, digests))
        decided = None not in recognized
        if not decided:
            recognized = [
                endpoint or heartbeats.recognize_refused(words)
                for endpoint, words in zip(recognized, digests, strict=True)
            ]
        # A name that stands there twice, perhaps in other letters, would be read but once.
        if None not in recognized and body.count(wording.key) == 1 and b"\\" not in body:
            endpoints = cast("list[Endpoint]", recognized)
            return BatchRequest(heartbeats, principal, wording, body, endpoints, decided)
        batch = decode(wording.decoder, body).heartbeats
    except RegistryError:
        return None
    unchanged: list[Endpoint] = []
    for words, heartbeat in zip(digests, batch, strict=True):
        endpoint = heartbeats.unchanged(principal, heartbeat, words)
        if endpoint is None:
            return BatchRequest(heartbeats, principal, wording, body, [], decided=False)
        unchanged.append(endpoint)
    return BatchRequest(heartbeats, principal, wording, body, unchanged, decided=False)


async def register_batch(
    heartbeats: Heartbeats, principal: Principal, batch: Sequence[Heartbeat]
) -> list[HeartbeatResult]:
    """Register or renew the endpoints of a batch together, and return the grant or the problem of each.

    Raises:
        UnavailableError: the whole request is to be sent again.
    """
    registered = await heartbeats.register_batch(principal, batch)
    return [heartbeat_result(heartbeat, outcome) for heartbeat, outcome in zip(batch, registered, strict=True)]


def heartbeat_result(heartbeat: Heartbeat, outcome: Grant | RegistryError) -> HeartbeatResult:
    """Return what became of one heartbeat of a batch: its grant, or the problem that says why there is none."""
    if isinstance(outcome, RegistryError):
        return HeartbeatResult(heartbeat.service, heartbeat.endpoint, problem=problem_for(outcome))
    return HeartbeatResult(heartbeat.service, heartbeat.endpoint, outcome)


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
    registration = decode(decode_registration, body)
    return msgspec.convert({"service": service, "endpoint": endpoint, "registration": registration}, Heartbeat)
