"""The invariants of the changeset over any history: transactions of several acts, by several instances."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from harness.examples import examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace
from unit.registry.making import NOW, registration

from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key, Override
from registry.core.endpoint_change import EndpointChange
from registry.core.lease import removable
from registry.errors import RegistryError
from registry.xds.eds import fragment
from wire.model import Health, Registration, Report

KEYS: list[Key] = [("shop", "10.0.0.1", 80), ("cart", "10.0.0.1", 80)]
DELAY, HOLD = 10.0, 60.0

keys = st.sampled_from(KEYS)
instances = st.sampled_from(["a", "b"])
incarnations = st.integers(1, 3)
registrations = st.builds(
    registration,
    instances,
    incarnations,
    health=st.sampled_from(Report),
    draining=st.sampled_from([False, False, False, True]),
    weight=st.sampled_from([None, 1, 7]),
    zone=st.sampled_from(["", "z"]),
    metadata=st.sampled_from([{}, {"k": 1}, {"k": True}, {"k": 1.0}, {"k": [1]}, {"k": [True]}]),
    detail=st.sampled_from(["", "d"]),
)
overrides = st.builds(
    Override,
    weight=st.sampled_from([None, 3]),
    drain=st.booleans(),
    actor=st.just("anna"),
    reason=st.just(""),
    set_at=st.just(NOW),
    expires_at=st.none() | st.just(NOW + 30),
)
acts = st.one_of(
    st.tuples(st.just("register"), keys, registrations, st.sampled_from([True, True, True, False])),
    st.tuples(st.just("drain"), keys, st.none() | instances, st.none() | incarnations),
    st.tuples(st.just("deregister"), keys, st.none() | instances, st.none() | incarnations, st.booleans()),
    st.tuples(st.just("override"), keys, overrides),
    st.tuples(st.just("clear"), keys),
)


class Histories(RuleBasedStateMachine):
    """A database of rows; each rule is a transaction on them.

    ``left`` holds, for each key and instance, the newest incarnation that drained, deregistered or was taken over.
    A registration without incarnations brings an instance back; its registrar may then, but need not, be refused
    for what it did ``once``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.rows: dict[int, Endpoint] = {}
        self.overrides: dict[Key, Override] = {}
        self.left: defaultdict[tuple[Key, str], int] = defaultdict(int)
        self.once: defaultdict[tuple[Key, str], int] = defaultdict(int)

    @rule(done=st.lists(acts, min_size=1, max_size=4), seconds=st.sampled_from([0.5, 20.0]))
    def transact(self, done: list[tuple[Any, ...]], seconds: float) -> None:
        """Do several acts in one transaction, as a group commit does."""
        self.now += seconds
        changeset = Changeset(self.now, self.rows.values(), dict(self.overrides))
        for name, key, *arguments in done:
            before, endpoint = state(changeset), changeset.listed(key)
            try:
                after = self.act(changeset, name, key, arguments)
            except RegistryError:
                assert state(changeset) == before, "a refusal leaves no trace"
                continue
            if endpoint is not None and endpoint.status is Health.UNHEALTHY and name in ("drain", "deregister"):
                assert after is not None
                assert after.status is Health.UNHEALTHY, "UNHEALTHY stays UNHEALTHY"
        self.commit(changeset)

    def act(self, changeset: Changeset, name: str, key: Key, arguments: list[Any]) -> Endpoint | None:
        """Do one act, and keep the books on who has left."""
        if name == "register":
            return self.register(changeset, key, *arguments)
        if name == "override":
            return changeset.override(key, arguments[0], "anna")
        if name == "clear":
            return self.clear(changeset, key)
        instance, incarnation, *more = arguments
        if name == "drain":
            after = changeset.drain(key, instance, incarnation, "x")
        else:
            after = changeset.deregister(key, instance, incarnation, "x", lapsed_too=more[0])
        self.leaves(after, incarnation)
        return after

    def register(self, changeset: Changeset, key: Key, registration: Registration, fenced: bool) -> Endpoint:
        """Register, and check that it is refused exactly if it has left or a newer incarnation owns the endpoint."""
        endpoint, left = changeset.listed(key), self.left[key, registration.instance_id]
        others = [
            row
            for row in changeset.all_listed()
            if (row.address, row.port) == key[1:] and row.registration.instance_id != registration.instance_id
        ]
        mine = endpoint is not None and endpoint.registration.instance_id == registration.instance_id
        newer = endpoint is not None and mine and endpoint.registration.incarnation > registration.incarnation
        buried = max(
            (
                row.registration.incarnation
                for row in self.rows.values()
                if row.key == key and row.registration.instance_id == registration.instance_id
            ),
            default=0,
        )
        draining_on = endpoint is not None and mine and endpoint.registration.draining and endpoint.leaving_at is None
        same = endpoint is not None and endpoint.registration.incarnation == registration.incarnation
        try:
            after = changeset.register(key, registration, "x", fenced=fenced)
        except RegistryError:
            assert fenced, "a client without incarnations is never refused"
            once = self.once[key, registration.instance_id]
            assert newer or registration.incarnation <= once or registration.incarnation < buried, (
                "nobody else is refused"
            )
            raise
        if fenced:
            assert not newer, "an older incarnation gets nothing"
            assert registration.incarnation > left or (draining_on and same), "who left stays away"
        elif not draining_on:
            self.left.pop((key, registration.instance_id), None)
        for row in others:
            self.leaves(row, None)
        if after.registration.draining:
            self.leaves(after, None)
        return after

    def clear(self, changeset: Changeset, key: Key) -> Endpoint | None:
        """Take an override back, and check that it is not found exactly if none is set."""
        endpoint = changeset.listed(key)
        kept = changeset.overrides.get(key, self.overrides.get(key)) if endpoint is None else endpoint.override
        try:
            changeset.clear_override(key, "bert")
        except RegistryError:
            assert kept is None, "what is set can be taken back"
            raise
        assert kept is not None, "what is not set cannot"
        return changeset.listed(key)

    def leaves(self, row: Endpoint, incarnation: int | None) -> None:
        """Note that an incarnation has left for good."""
        owner = (row.key, row.registration.instance_id)
        self.left[owner] = max(self.left[owner], row.registration.incarnation, incarnation or 0)
        self.once[owner] = max(self.once[owner], self.left[owner])

    @rule(which=keys)
    def lapse(self, which: Key) -> None:
        """Expire a lease."""
        self.sweep(which[0], lambda changeset: changeset.lapse(which, self.now))

    @rule(seconds=st.sampled_from([1.0, DELAY, HOLD]), service=st.sampled_from(["shop", "cart"]))
    def remove(self, seconds: float, service: str) -> None:
        """Let time pass and remove what may be removed."""
        self.now += seconds
        listed = [row for row in self.rows.values() if row.service == service and row.removed_at is None]

        def decide(changeset: Changeset) -> None:
            for row in removable(listed, self.now, DELAY, HOLD):
                assert row.unroutable_at is not None
                assert self.now - row.unroutable_at >= DELAY, "a removal has two phases"
                changeset.remove(row.key)

        self.sweep(service, decide)

    @rule(which=keys)
    def end_override(self, which: Key) -> None:
        """End an override whose time is over."""
        changeset = Changeset(self.now, self.rows.values(), dict(self.overrides))
        changeset.end_override(which)
        self.commit(changeset)

    def sweep(self, service: str, decide: Callable[[Changeset], None]) -> None:
        """Run a transaction of the sweeper on the listed endpoints of a service."""
        changeset = Changeset(
            self.now, [r for r in self.rows.values() if r.service == service and r.removed_at is None]
        )
        decide(changeset)
        self.commit(changeset)

    def commit(self, changeset: Changeset) -> None:
        """Store what changed, as the store does, and check what a transaction must hold to."""
        with_event = {(event.service, event.address, event.port) for event in changeset.events}
        for entry in changeset.changed():
            assert entry.after.key in with_event, "every change has an event"
            if entry.before is not None and not entry.visible:
                assert seen(entry.before) == seen(entry.after), "what an Envoy sees has a new version"
            if not entry.after.id:
                entry.stored_as(len(self.rows) + 1)
            self.rows[entry.after.id] = entry.after
        for entry in changeset.granted():
            assert may_hold_a_lease(entry)
        for key, override in changeset.overrides.items():
            if override is None:
                self.overrides.pop(key, None)
            else:
                self.overrides[key] = override
        for number, row in self.rows.items():
            kept = self.overrides.get(row.key)
            if row.removed_at is None:
                assert row.override == kept, "what was judged is what is stored"
            self.rows[number] = replace(row, override=kept)

    def listed(self) -> list[Endpoint]:
        """Return the endpoints in the answers."""
        return [row for row in self.rows.values() if row.removed_at is None]

    @invariant()
    def nobody_is_resurrected(self) -> None:
        """An endpoint that was drained or deregistered is routable again only as a newer incarnation."""
        for row in self.listed():
            if row.routable:
                assert row.registration.incarnation > self.left[row.key, row.registration.instance_id]

    @invariant()
    def an_address_has_one_owner(self) -> None:
        """Among those that are not leaving, in whichever service, and one row for each service."""
        owners = defaultdict(set)
        for row in self.listed():
            if row.leaving_at is None:
                owners[row.address, row.port].add(row.registration.instance_id)
        assert all(len(instances) == 1 for instances in owners.values())
        assert len({row.key for row in self.listed()}) == len(self.listed())

    @invariant()
    def an_override_falls_on_its_own_instance(self) -> None:
        """The next instance at the address has no override."""
        for row in self.listed():
            assert row.override is None or row.override.instance_id == row.registration.instance_id

    @invariant()
    def the_end_of_routing_is_known(self) -> None:
        """The removal delay counts from it."""
        assert all((row.unroutable_at is None) == row.routable for row in self.listed())


def state(changeset: Changeset) -> tuple[object, ...]:
    """Return everything that a transaction would store."""
    entries = [(entry.before, entry.after, entry.granted) for entry in changeset.entries]
    return entries, list(changeset.events), dict(changeset.overrides), changeset.all_listed()


def seen(row: Endpoint) -> tuple[bytes, str, str]:
    """Return what an Envoy gets of an endpoint."""
    return fragment(row), row.registration.region, row.registration.zone


def may_hold_a_lease(entry: EndpointChange) -> bool:
    """Tell whether an endpoint is listed and neither lapsed nor leaving."""
    row = entry.after
    return row.removed_at is None and row.leaving_at is None and row.lapsed_at is None


TestHistories = Histories.TestCase
TestHistories.settings = examples(200, stateful_step_count=40)
