"""Access on streams: who opens one, what it may ask for, and what ends it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from harness.http2_memory import EchoService, MemoryClient
from harness.process import free_port
from harness.xds_world import EDS, Talk, World
from msgspec.structs import replace

from registry.auth.access_table import AccessTable
from registry.auth.certificate import ClientCertificate
from registry.auth.credential import Credential, Identity
from registry.auth.decision import Refusal
from registry.auth.grants import Grant
from registry.auth.policy import Mode, Policy
from registry.auth.principal import Principal
from registry.auth.tokens import SESSION, TOKEN, new_token
from registry.auth.verbs import Verb
from registry.background.access_feed import AccessFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.clock import Clock
from registry.http2.call import Call, Metadata, Peer, Status, StatusError
from registry.store.database import Database
from registry.usecases.authentication import Authentication
from registry.usecases.stream_access import AdmittedService, StreamAccess, WaitingCall
from registry.xds.eds import AssignmentCache
from registry.xds.grpc.streams import StreamEntry, Streams
from registry.xds.resource_cache import ServedType
from registry.xds.resources import ENDPOINTS

PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
PEER = Peer("10.0.0.9")
FAR = 4e9


def grant(*services: str, verb: Verb = Verb.DISCOVER) -> tuple[Grant, ...]:
    """Return the right to discover services."""
    return (Grant((verb,), services),)


class Setting:
    """A registry process with access, and a world of the services shop and cart."""

    def __init__(self, mode: Mode, feed: AccessFeed, table: AccessTable) -> None:
        self.table = table
        self.noted: list[tuple[str, bool]] = []
        self.policy = Policy(mode, (), self._note)
        self.streams = Streams([ServedType(ENDPOINTS, AssignmentCache(SnapshotCache()))], Clock())
        self.access = StreamAccess(self.policy, Authentication(table, feed, Clock()), self.streams)
        self.world = World()
        self.world.eds.put("shop", "cart")
        self.tokens: dict[str, Credential] = {}
        self.identities: list[Identity] = []
        self.headers: dict[str, str] = {}
        self.table.replace((), (), ())

    def _note(self, _principal: Principal, refusal: Refusal, enforced: bool) -> None:
        self.noted.append((refusal.reason, enforced))

    def grant(self, name: str, *grants: Grant) -> None:
        """Give a token these grants; a new one if there is none of this name."""
        if name not in self.headers:
            new = new_token(TOKEN)
            self.headers[name] = f"Bearer {new.text}"
            self.tokens[name] = Credential(new.id, new.digest, name, "envoy", FAR, grants=grants)
        else:
            before = self.tokens[name]
            self.tokens[name] = Credential(before.id, before.digest, name, "envoy", FAR, grants=grants)
        self.write()

    def revoke(self, name: str) -> None:
        """Revoke a token, whose row is kept."""
        self.tokens[name] = replace(self.tokens[name], revoked_at=1.0)
        self.write()

    def write(self) -> None:
        """Have the table read everything."""
        self.table.replace(self.tokens.values(), self.identities, ())

    def open(self, name: str = "", peer: Peer = PEER, names: Sequence[str] = ("shop", "cart")) -> Talk:
        """Open a stream and ask for services."""
        guard, observer = self.access.admit(PATH, metadata(self.headers.get(name)), peer)
        talk = Talk(self.world, guard=guard, observer=observer)
        talk.ask(EDS, names)
        return talk


def metadata(authorization: str | None) -> Metadata:
    """Return the metadata of a call."""
    return {} if authorization is None else {"authorization": authorization}


def end_of(talk: Talk) -> tuple[Status, str] | None:
    """Return what ends a stream; None if nothing does."""
    try:
        talk.hear_all()
    except StatusError as error:
        return error.status, error.message
    return None


def status_of(setting: Setting, name: str = "", peer: Peer = PEER) -> tuple[Status, str]:
    """Return the status that a stream gets which is not admitted."""
    with pytest.raises(StatusError) as refused:
        setting.open(name, peer)
    return refused.value.status, refused.value.message


@pytest.fixture
async def feed() -> AsyncIterator[AccessFeed]:
    """The feed of credentials, while PostgreSQL is away."""
    database = Database(f"postgresql://127.0.0.1:{free_port()}/x", connections=1, timeout=1)
    made = AccessFeed(database, AccessTable(), Clock())
    yield made
    await made.stop()
    await database.close()


@pytest.fixture
def setting(feed: AccessFeed) -> Setting:
    """A closed registry."""
    return Setting("on", feed, feed._table)


async def test_an_open_registry_admits_everybody(feed: AccessFeed) -> None:
    """And never looks at a stream again."""
    setting = Setting("off", feed, feed._table)
    talk = setting.open()
    await setting.access.review()
    answer = talk.hear()
    assert answer is not None
    assert answer.resources == {"shop": 1, "cart": 1}


async def test_a_stream_needs_a_credential_and_some_grant(setting: Setting) -> None:
    """The words say what is missing, and the refusal is noted for the log and the audit."""
    setting.grant("web", *grant("shop"))
    setting.grant("ci", *grant("*", verb=Verb.REGISTER))
    assert status_of(setting) == (
        Status.UNAUTHENTICATED,
        "the verb discover needs a credential, and none was sent",
    )
    assert status_of(setting, "ci") == (Status.PERMISSION_DENIED, "no grant of token:ci allows the verb discover")
    setting.headers["bad"] = setting.headers["web"][:-1] + "!"
    status, words = status_of(setting, "bad")
    assert status is Status.UNAUTHENTICATED
    assert "token" in words
    assert setting.headers["web"] not in words
    assert [enforced for _, enforced in setting.noted] == [True, True, True]
    setting.table.ready = False
    assert status_of(setting, "web")[0] is Status.UNAVAILABLE


async def test_a_name_that_is_not_granted_keeps_no_other_back(setting: Setting) -> None:
    """It is answered as one that does not exist, with the words where the protocol has a place for them."""
    setting.grant("web", *grant("shop"))
    talk = setting.open("web")
    answers = talk.hear_all()
    words = "no grant of token:web allows the verb discover for the service cart"
    assert answers[0].resources["shop"] == 1
    assert answers[0].resources.get("cart", 0) == 0
    assert answers[0].errors == {"cart": words}
    assert setting.noted == [(words, True)]
    (entry,) = setting.streams
    assert entry.stream is not None
    (record,) = entry.stream.records
    assert (record.refusal("cart"), record.refusal("shop")) == (words, "")


async def test_audit_notes_what_would_be_refused_and_refuses_nothing(feed: AccessFeed) -> None:
    """Each name is noted once a stream."""
    setting = Setting("audit", feed, feed._table)
    talk = setting.open()
    answer = talk.hear()
    assert answer is not None
    assert answer.resources == {"shop": 1, "cart": 1}
    assert [enforced for _, enforced in setting.noted] == [False, False]
    setting.grant("web", *grant("pay"))
    web = setting.open("web")
    setting.revoke("web")
    await setting.access.review()
    assert end_of(web) is None


async def test_a_revoked_credential_ends_its_streams_and_no_others(setting: Setting) -> None:
    """Within a second of the reading."""
    setting.grant("web", *grant("shop"))
    setting.grant("api", *grant("*"))
    web, api = setting.open("web"), setting.open("api")
    assert (end_of(web), end_of(api)) == (None, None)
    setting.revoke("web")
    await setting.access.review()
    ended = end_of(web)
    assert ended is not None
    assert ended[0] is Status.UNAUTHENTICATED
    assert end_of(api) is None


async def test_a_stream_that_cannot_be_reviewed_keeps_no_other_from_being_ended(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends too, since nobody knows what it may still ask for, and its next one is decided anew."""
    for name in ("odd", "bad", "good"):
        setting.grant(name, *grant("shop", "cart"))
    odd, bad, good = (setting.open(name) for name in ("odd", "bad", "good"))
    principal_of = setting.access._principal

    async def principal(peer: Peer, authorization: bytes | None) -> Principal:
        if authorization == setting.headers["odd"].encode():
            raise RuntimeError("a defect")
        return await principal_of(peer, authorization)

    monkeypatch.setattr(setting.access, "_principal", principal)
    setting.revoke("bad")
    await setting.access.review()
    assert [end and end[0] for end in map(end_of, (odd, bad, good))] == [
        Status.UNAVAILABLE,
        Status.UNAUTHENTICATED,
        None,
    ]


async def test_a_revoked_grant_ends_a_stream_that_uses_it(setting: Setting) -> None:
    """One that is not used ends none; one that was missing and is granted begins the stream anew."""
    setting.grant("web", *grant("shop", "cart"))
    setting.grant("api", *grant("shop", "pay"))
    web, api = setting.open("web"), setting.open("api", names=["shop"])
    setting.grant("web", *grant("shop"))
    setting.grant("api", *grant("shop"))
    await setting.access.review()
    words = "no grant of token:web allows the verb discover for the service cart"
    assert end_of(web) == (Status.PERMISSION_DENIED, words)
    assert end_of(api) is None
    again = setting.open("web")
    assert end_of(again) is None
    setting.grant("web", *grant("shop", "cart", "pay"))
    await setting.access.review()
    ended = end_of(again)
    assert ended is not None
    assert ended[0] is Status.UNAVAILABLE
    assert "has changed" in ended[1]


async def test_changes_of_other_identities_end_no_stream_of_a_certificate(setting: Setting) -> None:
    """Though each may be another's match: the same answers come out, so the stream goes on."""
    certificate = ClientCertificate(("spiffe://example.org/web",), (), FAR)
    peer = Peer("10.0.0.9", certificate)
    assert status_of(setting, peer=peer)[0] is Status.UNAUTHENTICATED
    setting.identities = [Identity("web", "spiffe", "spiffe://example.org/web", "envoy", grant("shop"))]
    setting.write()
    talk = setting.open(peer=peer, names=["shop"])
    setting.identities.append(Identity("other", "spiffe", "spiffe://example.org/other", "envoy", grant("*")))
    setting.write()
    await setting.access.review()
    assert end_of(talk) is None
    setting.identities[0] = Identity("web", "spiffe", "spiffe://example.org/web", "envoy", grant("cart"))
    setting.write()
    await setting.access.review()
    ended = end_of(talk)
    assert ended is not None
    assert ended[0] is Status.PERMISSION_DENIED


async def test_a_network_proves_a_client_and_an_expired_certificate_does_not(setting: Setting) -> None:
    """A certificate is checked by TLS in the handshake alone, and a stream outlives that."""
    setting.identities = [Identity("office", "network", "10.0.0.0/24", "envoy", grant("shop"))]
    setting.write()
    assert end_of(setting.open(names=["shop"])) is None
    talk = setting.open(peer=Peer("10.0.0.9", ClientCertificate((), ("web.example.org",), 1.0)), names=["shop"])
    await setting.access.review()
    assert end_of(talk) == (Status.UNAUTHENTICATED, "the client certificate of this connection has expired")


class Opened:
    """A service whose calls are streams of a setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.entry: StreamEntry | None = None

    def open(self, path: str, metadata: Metadata, peer: Peer, wake: Any) -> Call:
        """Open a stream."""
        guard, observer = self.setting.access.admit(path, metadata, peer)
        return Talk(self.setting.world, guard=guard, observer=observer).stream


async def until_woken(woken: list[None]) -> None:
    """Wait until a call is woken."""
    async with asyncio.timeout(10):
        while not woken:
            await asyncio.sleep(0.01)


async def test_an_unknown_credential_is_searched_before_the_stream_begins(setting: Setting) -> None:
    """What comes meanwhile waits; one that PostgreSQL cannot say anything about may try again."""
    woken: list[None] = []
    new = new_token(SESSION)
    service = AdmittedService(setting.access, Opened(setting))
    call = service.open(PATH, metadata(f"Bearer {new.text}"), PEER, lambda: woken.append(None))
    assert isinstance(call, WaitingCall)
    assert (call.next(0.0), call.deadline()) == (None, None)
    await until_woken(woken)
    with pytest.raises(StatusError, match="PostgreSQL") as unsure:
        call.next(0.0)
    assert unsure.value.status is Status.UNAVAILABLE
    call.close(0.0)
    setting.grant("web", *grant("shop"))
    assert not isinstance(
        service.open(PATH, metadata(setting.headers["web"]), PEER, lambda: woken.append(None)), WaitingCall
    )


async def test_requests_wait_for_the_search_and_are_bounded(setting: Setting) -> None:
    """In their order, and at most a megabyte of them."""
    woken: list[None] = []
    found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    setting.grant("web", *grant("*"))

    async def search() -> None:
        await found

    def open_call() -> Call:
        return Opened(setting).open(PATH, metadata(setting.headers["web"]), PEER, None)

    call = WaitingCall(search, open_call, lambda: woken.append(None))
    recorded = Talk(setting.world)
    recorded.stream.receive = call.receive  # type: ignore[method-assign]  # passed on
    recorded.ask(EDS, ["shop"])
    with pytest.raises(StatusError) as too_much:
        call.receive(b"x" * (1 << 20), 0.0)
    assert too_much.value.status is Status.RESOURCE_EXHAUSTED
    assert call.next(0.0) is None
    found.set_result(None)
    await until_woken(woken)
    assert call.next(0.0) is not None
    call.close(0.0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_client_that_ends_with_its_request_is_answered_after_the_search(fails: bool) -> None:
    """A credential that has to be searched costs nobody its answer, and a search that fails tells why."""
    found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    woken: list[None] = []

    async def search() -> None:
        await found

    class Searching(EchoService):
        def open(self, path: str, metadata: Metadata, peer: Peer, wake: Callable[[], None]) -> Any:
            def note() -> None:
                woken.append(None)
                wake()

            return WaitingCall(search, lambda: EchoService.open(self, path, metadata, peer, wake), note)

    client = MemoryClient(Searching())
    stream = client.open()
    client.send(stream, b"hello", end=True)
    client.exchange()
    assert client.status(stream) is None
    if fails:
        found.set_exception(StatusError(Status.UNAVAILABLE, "PostgreSQL is away"))
    else:
        found.set_result(None)
    await until_woken(woken)
    client.exchange()
    assert client.messages(stream) == ([] if fails else [b"hello"])
    assert client.status(stream) == ((14, "PostgreSQL is away") if fails else (0, ""))


async def test_a_defect_behind_a_search_ends_its_call() -> None:
    """It is raised where the connection ends a call with INTERNAL; the client does not wait for ever."""
    woken: list[None] = []

    async def search() -> None:
        raise ZeroDivisionError

    call = WaitingCall(search, pytest.fail, lambda: woken.append(None))
    await until_woken(woken)
    with pytest.raises(ZeroDivisionError):
        call.next(0.0)
    call.close(0.0)
