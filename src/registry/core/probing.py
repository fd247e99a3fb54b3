"""The rules of a prober: when it has a say about an endpoint, and what its attempts come to.

A prober is a registry process or a registrar. It has a say about a suspect only if

- it has connected to that address, port and incarnation lately, while the endpoint was healthy (its base line), and
- it connects, within ``CONTROL_WINDOW`` of each attempt, to two endpoints that renew now on two other hosts (controls).

A control that fails means that the prober's own network is not well: it has no say for ``MUTE_SECONDS``. Times are of
one monotonic clock and are given. ``registry.core.evidence`` says what the statements of several probers come to.
"""

import heapq
import ipaddress
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from registry.core.endpoint import Endpoint
from registry.core.evidence import MAX_BASE_LINE_AGE, MAX_CONNECTED_AGE, MAX_STATEMENT_AGE, StatementKind
from registry.core.lease import Leases
from registry.core.silence import is_silent
from wire.tcp_probe import Outcome

BASE_LINE_INTERVAL = 300.0
"""Seconds between two connections to an endpoint that renews."""
CONTROL_WINDOW = 5.0
"""Seconds before the end of an attempt within which both controls have to connect."""
CONTROLS = 2
"""The number of controls."""
MUTE_SECONDS = 30.0
"""Seconds for which a prober has no say after a control failed."""
MIN_ATTEMPTS = 3
"""Attempts in a row that have to end in the same way."""
MIN_SPACING = 1.0
"""Seconds between the begins of two attempts that count."""
MIN_UNREACHABLE = 5.0
"""Seconds from the begin of the first to the end of the last attempt that timed out."""
RETRY_INTERVAL = 1.1
"""Seconds from the end of an attempt to the next one, until enough of them agree."""
CONNECTED_INTERVAL = 4.0
"""Seconds to the next attempt after a connection, so that it stays known that the endpoint can be connected to."""
REPEAT_INTERVAL = 8.0
"""Seconds to the next attempt once enough agree, so that the statement stays young."""
MAX_ACTIVE_SUSPECTS = 40
"""Suspects that are tried at the same time; at 20 probes a second three attempts at each end within ten seconds."""
_MAX_ATTEMPTS = 2 * MIN_ATTEMPTS
"""Attempts at a suspect that are remembered."""
_MAX_CHANGES = 2
"""Changes of the outcome among these beyond which it is not waited for that attempts agree."""

Subject = tuple[int, int]
"""Endpoint id and incarnation: what a base line and a statement are about."""


class Target(Struct, frozen=True, gc=False):
    """An endpoint as probers know it."""

    endpoint_id: int
    service: str
    address: str
    port: int
    incarnation: int
    zone: str = ""

    @property
    def subject(self) -> Subject:
        """The endpoint and its incarnation."""
        return self.endpoint_id, self.incarnation


class Conclusion(Struct, frozen=True, gc=False):
    """The conclusion from a prober's attempts at a suspect; times are the prober's monotonic ones."""

    kind: StatementKind
    at: float
    attempts: int
    reached_at: float | None = None


class Attempt(Struct, frozen=True, gc=False):
    """One attempt at a suspect; ``controlled``: both controls connected within ``CONTROL_WINDOW``."""

    outcome: Outcome
    began: float
    ended: float
    controlled: bool


class BaseLine(Struct, frozen=True, gc=False):
    """The last attempt at an endpoint that renewed, and the last one that connected; None: none did."""

    incarnation: int
    tried_at: float
    reached_at: float | None


def target_of(endpoint: Endpoint) -> Target:
    """Return an endpoint as probers know it."""
    registration = endpoint.registration
    return Target(
        endpoint.id,
        endpoint.service,
        endpoint.address,
        endpoint.port,
        registration.incarnation,
        registration.zone or "",
    )


def is_healthy(endpoint: Endpoint) -> bool:
    """Return whether an endpoint renews and may have traffic."""
    return endpoint.alive and endpoint.routable and not is_silent(endpoint)


def opts_out(endpoint: Endpoint) -> bool:
    """Return whether the metadata say ``probe: false``; some sources of metadata have no other type than text."""
    value = endpoint.registration.metadata.get("probe")
    return value is False or (isinstance(value, str) and value.lower() in ("false", "off", "no"))


def renewed_at_of(endpoint: Endpoint, leases: Leases, read_at: float) -> float | None:
    """Return when an endpoint was last heard of, or None when its heartbeat is late.

    An endpoint that died together with the suspects is late, too, while its lease has yet to expire.
    """
    lease = leases.get(endpoint.id)
    ttl = endpoint.registration.ttl
    if lease is None or ttl is None or read_at - lease.renewed_at > ttl / 2:
        return None
    return lease.renewed_at


def choose_controls(suspect: Target, renewing: Iterable[Target], fresh: Collection[Subject] = ()) -> list[Target]:
    """Return the endpoints by which a prober checks itself before it speaks about a suspect: two, or too few.

    They are on two other hosts than the suspect's, of its service if there are, of its network or zone if there are.

    Args:
        suspect: the suspect.
        renewing: endpoints that renew now and that the prober has reached, those that renewed last first.
        fresh: those that have served as a control just now, which are taken before others of their kind.
    """

    def order(target: Target) -> tuple[bool, bool, bool]:
        return target.service != suspect.service, not _are_neighbours(target, suspect), target.subject not in fresh

    controls: list[Target] = []
    for target in sorted(renewing, key=order):
        if target.address != suspect.address and all(target.address != control.address for control in controls):
            controls.append(target)
            if len(controls) == CONTROLS:
                break
    return controls


def _are_neighbours(target: Target, suspect: Target) -> bool:
    if suspect.zone and target.zone == suspect.zone:
        return True
    return network_of(target.address) == network_of(suspect.address)


def network_of(address: str) -> tuple[int, str]:
    """Return the /24 of an IPv4 address, or the /64 of an IPv6 address."""
    if ":" in address:
        return 6, str(int(ipaddress.IPv6Address(address)) >> 64)
    return 4, address.rpartition(".")[0]


class ProberRecord:
    """The connections that one prober has made, and the conclusions that they allow."""

    def __init__(self) -> None:
        # By endpoint id; written by note_base_line(), those that are too old to matter are dropped by prune().
        self._base_lines: dict[int, BaseLine] = {}
        # When each control last connected; only those of the last CONTROL_WINDOW matter.
        self._controls: dict[Subject, float] = {}
        # By suspect: its last attempts, the oldest first.
        self._attempts: dict[Subject, deque[Attempt]] = {}
        # When the prober has a say again after a control failed.
        self.muted_until = float("-inf")

    def note_base_line(self, target: Target, outcome: Outcome, now: float) -> None:
        """Record an attempt at an endpoint that renews and is healthy."""
        reached_at = now if outcome == "connected" else self.reached_at(target)
        self._base_lines[target.endpoint_id] = BaseLine(target.incarnation, now, reached_at)

    def base_line_due(self, target: Target, now: float) -> bool:
        """Return whether an endpoint that renews is to be tried again."""
        base_line = self._base_line(target)
        return base_line is None or now - base_line.tried_at >= BASE_LINE_INTERVAL

    def reached_at(self, target: Target) -> float | None:
        """Return when this incarnation was last connected to while it was healthy; None: never."""
        base_line = self._base_line(target)
        return None if base_line is None else base_line.reached_at

    def has_base_line(self, target: Target, now: float) -> bool:
        """Return whether an endpoint was reached lately enough."""
        reached_at = self.reached_at(target)
        return reached_at is not None and now - reached_at <= MAX_BASE_LINE_AGE

    @property
    def tried(self) -> int:
        """The number of endpoints that were tried lately, whatever came of it."""
        return len(self._base_lines)

    def base_lines(self, now: float) -> int:
        """Return the number of endpoints that were reached lately enough."""
        return sum(
            line.reached_at is not None and now - line.reached_at <= MAX_BASE_LINE_AGE
            for line in self._base_lines.values()
        )

    def _base_line(self, target: Target) -> BaseLine | None:
        base_line = self._base_lines.get(target.endpoint_id)
        return base_line if base_line is not None and base_line.incarnation == target.incarnation else None

    def note_control(self, target: Target, outcome: Outcome, now: float) -> bool:
        """Record an attempt at a control, and return whether the prober keeps its say."""
        if outcome == "connected":
            self._controls[target.subject] = now
            return True
        self._controls.clear()
        self.muted_until = now + MUTE_SECONDS
        for attempts in self._attempts.values():
            kept = [attempt for attempt in attempts if attempt.outcome == "connected"]
            attempts.clear()
            attempts.extend(kept)
        return False

    def is_muted(self, now: float) -> bool:
        """Return whether a control failed lately."""
        return now < self.muted_until

    def fresh_controls(self, now: float, seconds: float = CONTROL_WINDOW) -> set[Subject]:
        """Return the controls that connected within the last seconds."""
        self._controls = {subject: at for subject, at in self._controls.items() if now - at <= CONTROL_WINDOW}
        return {subject for subject, at in self._controls.items() if now - at <= seconds}

    def note_attempt(
        self, target: Target, outcome: Outcome, began: float, ended: float, controls: Sequence[Target]
    ) -> None:
        """Record an attempt at a suspect, with the controls that were chosen for it."""
        fresh = self.fresh_controls(ended)
        hosts = {control.address for control in controls if control.subject in fresh} - {target.address}
        attempt = Attempt(outcome, began, ended, len(hosts) >= CONTROLS and not self.is_muted(ended))
        self._attempts.setdefault(target.subject, deque(maxlen=_MAX_ATTEMPTS)).append(attempt)

    def conclusion(self, target: Target, now: float) -> Conclusion | None:
        """Return what the attempts at a suspect come to; None: nothing."""
        return conclude(self._attempts.get(target.subject, ()), self.reached_at(target), now)

    def next_attempt_in(self, target: Target) -> float:
        """Return the seconds from the end of the last attempt at a suspect to the next one."""
        attempts = self._attempts.get(target.subject, ())
        run = _run(attempts)
        if not run:
            return RETRY_INTERVAL
        if run[-1].outcome != "connected" and _changes(attempts) > _MAX_CHANGES:
            # They may never agree, and the suspects that wait have to have their turn.
            return REPEAT_INTERVAL
        if run[-1].outcome == "connected":
            return CONNECTED_INTERVAL
        if run[-1].controlled:
            # Attempts that were made before there were controls do not count.
            run = [attempt for attempt in run if attempt.controlled]
        return REPEAT_INTERVAL if _is_complete(run) else RETRY_INTERVAL

    def is_settled(self, target: Target) -> bool:
        """Return whether no other attempt at a suspect is needed soon."""
        return self.next_attempt_in(target) > RETRY_INTERVAL

    def keep_suspects(self, suspects: Collection[Subject]) -> None:
        """Forget the attempts at endpoints that are no suspects any more."""
        self._attempts = {subject: kept for subject, kept in self._attempts.items() if subject in suspects}

    def prune(self, now: float) -> None:
        """Forget base lines that are too old to matter."""
        self._base_lines = {
            endpoint_id: line
            for endpoint_id, line in self._base_lines.items()
            if now - line.tried_at < MAX_BASE_LINE_AGE
        }


_KINDS: Mapping[Outcome, StatementKind] = {"refused": "refused", "timed_out": "unreachable"}


def conclude(attempts: Iterable[Attempt], reached_at: float | None, now: float) -> Conclusion | None:
    """Return what attempts at a suspect come to; None: nothing.

    Args:
        attempts: the attempts, the oldest first.
        reached_at: when the prober last connected to the suspect while it was healthy; None: never.
        now: the time.
    """
    made = list(attempts)
    connected = [attempt.ended for attempt in made if attempt.outcome == "connected"]
    if connected and now - connected[-1] <= MAX_CONNECTED_AGE:
        return Conclusion("connected", connected[-1], 1, reached_at)
    kind = _KINDS.get(made[-1].outcome) if made else None
    if kind is None or reached_at is None:
        return None
    run = _run(attempt for attempt in made if now - attempt.ended <= MAX_STATEMENT_AGE)
    for length in range(MIN_ATTEMPTS, len(run) + 1):
        counting = run[-length:]
        in_time = counting[-1].ended - reached_at <= MAX_BASE_LINE_AGE
        if in_time and all(attempt.controlled for attempt in counting) and _is_complete(counting):
            return Conclusion(kind, counting[-1].ended, len(counting), reached_at)
    return None


def _run(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return the last attempts that ended in the same way, without those that came too soon after another one."""
    run: list[Attempt] = []
    for attempt in attempts:
        if run and attempt.outcome != run[-1].outcome:
            run = []
        if not run or attempt.began - run[-1].began >= MIN_SPACING:
            run.append(attempt)
    return run


def _changes(attempts: Iterable[Attempt]) -> int:
    """Return how often an attempt ended in another way than the one before it."""
    return sum(before.outcome != after.outcome for before, after in pairwise(attempts))


def _is_complete(run: Sequence[Attempt]) -> bool:
    if len(run) < MIN_ATTEMPTS:
        return False
    if run[-1].outcome == "timed_out":
        return run[-1].ended - run[0].began >= MIN_UNREACHABLE
    # Three that show nothing are as many as three that are refused: another one would hardly show more.
    return True


class SuspectQueue:
    """The suspects of a prober, in the order in which they are tried.

    At most ``MAX_ACTIVE_SUSPECTS`` are tried at the same time, each until its attempts agree, because the attempts at
    all of thousands in turn would never be close enough together. They begin in the order of their ids, so that several
    processes try the same ones at about the same time.
    """

    def __init__(self) -> None:
        # Every suspect that there is now.
        self._targets: dict[Subject, Target] = {}
        # Subjects whose attempts have yet to agree, with the time of the next attempt; infinite while one is under way.
        self._active: dict[Subject, float] = {}
        # A heap of the others by the time of the next attempt; suspects that are gone are skipped.
        self._waiting: list[tuple[float, Subject]] = []

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def targets(self) -> Mapping[Subject, Target]:
        """All suspects."""
        return self._targets

    def update(self, suspects: Iterable[Target], now: float) -> None:
        """Replace the suspects; those that are new are tried at once."""
        before, self._targets = self._targets, {target.subject: target for target in suspects}
        self._active = {subject: due for subject, due in self._active.items() if subject in self._targets}
        for subject in self._targets.keys() - before.keys():
            heapq.heappush(self._waiting, (now, subject))

    def take(self, now: float) -> Target | None:
        """Return the suspect to try now, which is under way until ``put_back``; None: none is due."""
        due, subject = min(((due, subject) for subject, due in self._active.items()), default=(float("inf"), None))
        if subject is None or due > now:
            subject = self._next_waiting(now)
        if subject is None:
            return None
        self._active[subject] = float("inf")
        return self._targets[subject]

    def _next_waiting(self, now: float) -> Subject | None:
        while self._waiting and len(self._active) < MAX_ACTIVE_SUSPECTS and self._waiting[0][0] <= now:
            _, subject = heapq.heappop(self._waiting)
            if subject in self._targets and subject not in self._active:
                return subject
        return None

    def put_back(self, target: Target, due: float, *, settled: bool) -> None:
        """Take note that an attempt is over, and when the next one is due."""
        subject = target.subject
        if subject not in self._targets:
            return
        if settled:
            self._active.pop(subject, None)
            heapq.heappush(self._waiting, (due, subject))
        else:
            self._active[subject] = due
