"""The silence of an endpoint: its lease has expired, and the guard or a pause keeps it in the answers.

Envoy receives the status that the endpoint had. For people its status is ``SILENT``, because nobody knows whether it
still serves: a list that calls it HEALTHY hides dead hosts while requests to them fail.

Whether an endpoint is silent is the sweeper's word, which PostgreSQL keeps (``Endpoint.suspect_since``), and not a
comparison of times here: the leases in memory grow old while PostgreSQL is away, and then every lease would seem to
have expired.
"""

import datetime as dt
from collections.abc import Mapping
from math import inf
from typing import Literal, get_args

from msgspec import Struct

from registry.core.endpoint import Endpoint
from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.core.lease import Lease
from wire.duration import format_duration
from wire.model import Report

SILENT = "SILENT"
"""The status, for people alone, of an endpoint whose lease has expired and that is still served."""
StatusForPeople = Literal["HEALTHY", "DEGRADED", "UNHEALTHY", "DRAINING", "TIMEOUT", "SILENT"]
"""A status as people see it: one of those that Envoy receives, or SILENT."""
STATUSES_FOR_PEOPLE: tuple[StatusForPeople, ...] = get_args(StatusForPeople)
"""Every status that people see."""


class Silence(Struct, frozen=True, gc=False):
    """The silence of an endpoint; times are seconds of the database's clock.

    Attributes:
        since: when the guard or a pause began to keep it.
        last_heard: when its lease was last renewed by a heartbeat; None where that is not known.
        last_reported: the health that its registrar reported last.
        held_until: when the guard lets it lapse whatever happens; a pause in force that ends later counts. It may lapse
            earlier, and later only while nobody sweeps.
        reason: why it did not lapse.
    """

    since: float
    last_heard: float | None
    last_reported: Report
    held_until: float
    reason: str

    def held_for(self, now: float) -> float:
        """Return the seconds for which it has been kept so far."""
        return max(0.0, now - self.since)


def is_silent(endpoint: Endpoint) -> bool:
    """Return whether the lease of an endpoint has expired and it is kept in the answers all the same.

    An endpoint that drains is on its way out, so nothing is kept from anybody.
    """
    return endpoint.suspect_since is not None and endpoint.lapsed_at is None and not endpoint.draining


def status_for_people(endpoint: Endpoint) -> str:
    """Return the status that people see: what Envoy receives, unless the endpoint is silent."""
    return SILENT if is_silent(endpoint) else endpoint.status.value


def pause_of(service: str, pauses: Mapping[str, Pause]) -> Pause | None:
    """Return the pause that keeps a service's endpoints from lapsing, of the pauses in force by scope."""
    return pauses.get(service) or pauses.get(EVERYWHERE)


def silence_of(
    endpoint: Endpoint, lease: Lease | None, now: float, max_hold: float, pause: Pause | None = None
) -> Silence | None:
    """Return the silence of an endpoint; None when its lease is good, or it is not served any more.

    Args:
        endpoint: the endpoint.
        lease: its lease as far as it is known; a process that started from disk knows none.
        now: the database's time.
        max_hold: seconds after which the guard lets it lapse whatever happens.
        pause: the pause of expiry that holds for its service.
    """
    marked = endpoint.suspect_since
    if marked is None or not is_silent(endpoint):
        return None
    # After PostgreSQL's clock was set back the mark may lie ahead of it; the expiry of the lease was moved along.
    since = marked if marked <= now else min(now, lease.expires_at if lease else now)
    # Without its lease the mark is the best that is known: the sweeper sets it within a second or so of the expiry.
    expired_at = lease.expires_at if lease else since
    held_until = expired_at + max_hold
    if pause is not None:
        held_until = max(held_until, pause.until)
    return Silence(
        since, _last_heard(marked, lease, now), endpoint.registration.health, held_until, endpoint.suspect_reason
    )


def settled_at(endpoint: Endpoint, lease: Lease | None) -> float:
    """Return the database's time from which the silence of an endpoint does not depend on the time any more.

    It lies ahead only where PostgreSQL's clock was set back.
    """
    marked = endpoint.suspect_since
    if marked is None:
        return -inf
    return marked if lease is None else max(marked, lease.renewed_at)


def _last_heard(marked: float, lease: Lease | None, now: float) -> float | None:
    """Return when the last heartbeat came.

    A heartbeat takes the mark away. So a lease that is newer than the mark was granted by the sweeper in place of a
    lost one, and says nothing of a heartbeat.
    """
    if lease is None or marked < lease.renewed_at:
        return None
    return min(lease.renewed_at, now)


def silence_in_words(silence: Silence, now: float) -> str:
    """Return a silence as one line for people."""
    reported = silence.last_reported.value
    if silence.last_heard is None:
        heard = f"for {_duration(silence.held_for(now))}, last reported {reported}"
    else:
        heard = f"last reported {reported} {_duration(now - silence.last_heard)} ago"
    return f"{SILENT}, {heard}, {_kept(silence, now)} ({silence.reason})"


def until_in_words(silence: Silence, now: float) -> str:
    """Return the end of a silence to the minute, with the day where it is another one."""
    until = dt.datetime.fromtimestamp(silence.held_until, dt.UTC)
    same_day = until.date() == dt.datetime.fromtimestamp(now, dt.UTC).date()
    return f"{until:%H:%M} UTC" if same_day else f"{until:%Y-%m-%d %H:%M} UTC"


def _kept(silence: Silence, now: float) -> str:
    until = until_in_words(silence, now)
    if silence.held_until <= now:
        return f"kept in the answers although it was to lapse at {until}: nobody sweeps, or PostgreSQL is away"
    return f"kept by the guard until {until} at the latest"


def _duration(seconds: float) -> str:
    return format_duration(round(max(0.0, seconds)))
