"""Whatever happens between them, a client ends with the newest state of what it asks for.

Beside each stream there is a twin, whose requests have a field more, so that none of them is known by its bytes. It
gets the same answers, in bytes of its own where those of the first are shared.
"""

from collections.abc import Mapping

from harness.examples import examples
from harness.xds_world import CDS, EDS, LDS, RDS, Answer, MemorySource, Talk, World
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec.structs import replace

from registry.xds.grpc.delta import DeltaStream
from registry.xds.grpc.sotw import SotwStream

NAMES = st.sampled_from("abcd")
SETS = st.sets(NAMES, max_size=4)
TYPES = (CDS, EDS, LDS, RDS)
KINDS = st.sampled_from(TYPES)
FULL = (CDS, LDS)
UNKNOWN_FIELD = b"\xf8\x7f\x00"
"""Field 2047 of any message, a number."""


class Client:
    """A client of one type, which believes what it is sent.

    Attributes:
        asked: whether it has sent its first request.
        names: what it asks for.
        wildcard: whether it asks for all.
        holds: the version of each name.
        nonce: of the last answer.
        brings: its version_info.
    """

    def __init__(self) -> None:
        self.asked = False
        self.names: set[str] = set()
        self.wildcard = False
        self.holds: dict[str, int] = {}
        self.nonce = ""
        self.brings = ""
        self.unanswered: Answer | None = None


class Conversation(RuleBasedStateMachine):
    """A world that changes, and one stream whose client accepts, rejects, is slow and changes its mind."""

    stream: type[SotwStream | DeltaStream]

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.sources: Mapping[str, MemorySource] = {
            CDS: self.world.cds,
            EDS: self.world.eds,
            LDS: self.world.lds,
            RDS: self.world.rds,
        }
        self.clients = {each: Client() for each in TYPES}
        self.refuses: set[tuple[str, str, int]] = set()
        """What the client refuses: a type, a name and a version."""
        self.talk = Talk(self.world, self.stream)
        self.twin = Talk(self.world, self.stream, suffix=UNKNOWN_FIELD)
        self.nonces: dict[tuple[str, str], str] = {}
        """The twin's nonce by type and nonce."""

    @initialize(types=st.sets(KINDS, min_size=1), names=SETS)
    def begin(self, types: set[str], names: set[str]) -> None:
        """Put something into the world."""
        for type_url in types:
            if names:
                self.sources[type_url].put(*sorted(names))

    @rule(type_url=KINDS, names=SETS.filter(bool))
    def put(self, type_url: str, names: set[str]) -> None:
        """Change resources."""
        self.sources[type_url].put(*sorted(names))

    @rule(type_url=KINDS, name=NAMES)
    def poison(self, type_url: str, name: str) -> None:
        """Change a resource to something that the client refuses."""
        source = self.sources[type_url]
        source.versions.pop(name, None)
        source.put(name)
        self.refuses.add((type_url, name, source.versions[name]))

    @rule(type_url=KINDS, name=NAMES)
    def drop(self, type_url: str, name: str) -> None:
        """Forget a resource."""
        if name in self.sources[type_url].versions:
            self.sources[type_url].drop(name)

    @rule(type_url=KINDS)
    def doubt(self, type_url: str) -> None:
        """Be unsure for a while."""
        if self.talk.stream.answers:
            self.sources[type_url].make_sure(sure=False)

    @rule(type_url=KINDS)
    def trust(self, type_url: str) -> None:
        """Be sure again."""
        self.sources[type_url].make_sure()

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass, perhaps so much that the stream goes on without an ACK."""
        self.talk.now += seconds

    @rule(type_url=KINDS, names=SETS)
    def subscribe(self, type_url: str, names: set[str]) -> None:
        """Ask for other names."""
        self._subscribe(type_url, names)

    @rule(type_url=KINDS)
    def repeat(self, type_url: str) -> None:
        """Ask for the same once more."""
        if self.clients[type_url].asked:
            self._subscribe(type_url, self.clients[type_url].names)

    @rule()
    def hear(self) -> None:
        """Take the next answer, and say nothing yet."""
        self._hear()

    @rule(type_url=KINDS)
    @precondition(lambda self: any(client.unanswered for client in self.clients.values()))
    def reply(self, type_url: str) -> None:
        """Accept or reject the last answer of a type."""
        self._reply(type_url)

    def _hear(self) -> bool:
        self.twin.now = self.talk.now
        alike, answer = self.twin.hear(), self.talk.hear()
        if answer is None or alike is None:
            assert answer is alike
            return False
        key = (answer.type_url, answer.nonce)
        assert key not in self.nonces, "two answers have one nonce"
        self.nonces[key] = alike.nonce
        assert answer == replace(alike, nonce=answer.nonce)
        client = self.clients[answer.type_url]
        client.nonce, client.unanswered = answer.nonce, answer
        return True

    def _reply(self, type_url: str) -> None:
        client = self.clients[type_url]
        answer, client.unanswered = client.unanswered, None
        if answer is None:
            return
        if any((type_url, *each) in self.refuses for each in answer.resources.items()):
            self._send(type_url, answer.nonce, error={"code": 3, "message": "no"})
            return
        self._take(client, answer)
        self._send(type_url, answer.nonce)

    def _take(self, client: Client, answer: Answer) -> None:
        raise NotImplementedError

    def _send(self, type_url: str, nonce: str, error: dict[str, object] | None = None) -> None:
        raise NotImplementedError

    def _subscribe(self, type_url: str, names: set[str]) -> None:
        raise NotImplementedError

    def teardown(self) -> None:
        """Let the conversation come to its end, and compare."""
        for source in self.sources.values():
            source.make_sure()
        for _ in range(200):
            moved = self._hear()
            for type_url in TYPES:
                moved |= self.clients[type_url].unanswered is not None
                self._reply(type_url)
            if not moved:
                break
            # What is never answered is waited for no longer than this.
            self.talk.now += 0.5
        else:
            raise AssertionError("it never ends")
        self.talk.now += 20.0
        while self._hear():
            for type_url in TYPES:
                self._reply(type_url)
        for type_url in TYPES:
            self._compare(type_url)
        self.talk.stream.close(self.talk.now)
        self.twin.stream.close(self.talk.now)
        assert self.talk.heard.events == self.twin.heard.events
        assert not any(source.watches for source in self.sources.values())

    def _compare(self, type_url: str) -> None:
        client, source = self.clients[type_url], self.sources[type_url]
        wanted = set(source.versions) if client.wildcard else set()
        wanted |= client.names
        refused = {
            name for kind, name, version in self.refuses if (kind, source.versions.get(name)) == (type_url, version)
        }
        if refused and type_url in FULL and not self.talk.stream.delta:
            # A full set that has one bad resource is refused as a whole.
            return
        newest = {name: source.versions[name] for name in wanted - refused if name in source.versions}
        held = {name: version for name, version in client.holds.items() if name in newest}
        assert held == newest, type_url
        self._compare_others(type_url, wanted - refused - set(newest))

    def _compare_others(self, type_url: str, gone: set[str]) -> None:
        raise NotImplementedError


class SotwConversation(Conversation):
    """The state of the world."""

    stream = SotwStream

    def _subscribe(self, type_url: str, names: set[str]) -> None:
        client = self.clients[type_url]
        if type_url in FULL and not client.asked:
            client.wildcard = not names
        elif names:
            client.wildcard = False
        if not client.wildcard:
            client.holds = {name: version for name, version in client.holds.items() if name in names}
        client.names, client.asked = set(names), True
        self._send(type_url, client.nonce if client.unanswered is None else "")

    def _send(self, type_url: str, nonce: str, error: dict[str, object] | None = None) -> None:
        client = self.clients[type_url]
        fields = {} if error is None else {"error_detail": error}
        twin_nonce = self.nonces.get((type_url, nonce), "")
        self.twin.ask(type_url, sorted(client.names), twin_nonce, version_info=client.brings, **fields)
        self.talk.ask(type_url, sorted(client.names), nonce, version_info=client.brings, **fields)

    def _take(self, client: Client, answer: Answer) -> None:
        mine = {n: v for n, v in answer.resources.items() if client.wildcard or n in client.names}
        client.holds = mine if answer.type_url in FULL else client.holds | mine
        client.brings = answer.version

    def _compare_others(self, type_url: str, gone: set[str]) -> None:
        if type_url in FULL:
            assert not gone.intersection(self.clients[type_url].holds)


class DeltaConversation(Conversation):
    """The incremental variant."""

    stream = DeltaStream

    def _subscribe(self, type_url: str, names: set[str]) -> None:
        client = self.clients[type_url]
        if type_url in FULL and not client.asked:
            client.wildcard = not names
        added = sorted(names - client.names)
        dropped = sorted(client.names - names)
        if client.asked and not added and not dropped:
            added = sorted(names)
        client.names, client.asked = set(names), True
        if not client.wildcard:
            client.holds = {name: version for name, version in client.holds.items() if name in names}
        self.twin.change(type_url, added, dropped)
        self.talk.change(type_url, added, dropped)

    def _send(self, type_url: str, nonce: str, error: dict[str, object] | None = None) -> None:
        fields = {} if error is None else {"error_detail": error}
        self.twin.change(type_url, nonce=self.nonces.get((type_url, nonce), ""), **fields)
        self.talk.change(type_url, nonce=nonce, **fields)

    def _take(self, client: Client, answer: Answer) -> None:
        client.holds |= {n: v for n, v in answer.resources.items() if client.wildcard or n in client.names}
        for name in answer.removed:
            client.holds.pop(name, None)

    def _compare_others(self, type_url: str, gone: set[str]) -> None:
        assert not gone.intersection(self.clients[type_url].holds)


TestSotw = SotwConversation.TestCase
TestSotw.settings = examples(40, stateful_step_count=30)
TestDelta = DeltaConversation.TestCase
TestDelta.settings = examples(40, stateful_step_count=30)
