"""The results of registrars' probes: who may send them, and which of them are kept as statements."""

import time
from collections.abc import Iterator, Sequence

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint, Key, endpoint_key
from registry.core.evidence import Statement
from registry.core.probe_requests import is_prober
from registry.core.probing import opts_out
from registry.core.silence import is_silent
from registry.errors import FencedError, InvalidError, LimitError, UnknownEndpointError
from registry.store.database import Database
from registry.store.probe_statements import replace_statements
from registry.usecases.registration import Registrations
from wire.probe_report import ProbeReport, ProbeResult

MIN_REPORT_INTERVAL = 1.0
"""Seconds between two reports of one prober at least; an attempt takes longer."""
_MAX_REMEMBERED = 10_000
"""Probers whose last report is remembered before those of longer than ``MIN_REPORT_INTERVAL`` ago are forgotten."""


class ProbeReports:
    """Takes what registrars found out about suspects of their own service.

    Args:
        policy: decides who may report; whoever may register an endpoint may report for it.
        registrations: knows who owns an endpoint.
        cache: what this process knows of the endpoints.
        database: where the statements are stored for the process that sweeps.
    """

    def __init__(self, policy: Policy, registrations: Registrations, cache: SnapshotCache, database: Database) -> None:
        self._policy = policy
        self._registrations = registrations
        self._cache = cache
        self._database = database
        # By prober: monotonic time of its last report; entries of longer ago are forgotten when there are many.
        self._reported_at: dict[Key, float] = {}

    async def take(self, principal: Principal, report: ProbeReport) -> int:
        """Keep the results of a report that say something, and return their number.

        A result about an endpoint that is no suspect, that has another incarnation, that opted out or that is on the
        prober's own host says nothing, and nothing is wrong with sending it: the registrar may know less than this
        process.

        Raises:
            NotAllowedError: the principal may not register the endpoint that it reports for.
            NotOwnerError: that endpoint belongs to another identity.
            UnknownEndpointError: that endpoint is not registered.
            FencedError: another instance owns it.
            LimitError: it reports too often.
            UnavailableError: the results could not be stored, or this process cannot read the service.
        """
        key = endpoint_key(report.service, report.endpoint, "$.endpoint")
        prober = self._cache.find(key)
        name = report.endpoint if prober is None else prober.name
        self._policy.allow(principal, Verb.REGISTER, report.service, name, report.instance_id)
        if prober is None:
            self._cache.check_sure(report.service)
            raise UnknownEndpointError(report.service, report.endpoint)
        self._registrations.check_owners(principal, [key])
        owner = prober.registration
        if owner.instance_id != report.instance_id:
            message = f"{prober.name} of {report.service} belongs to instance {owner.instance_id}"
            raise FencedError(message, owner.instance_id, owner.incarnation)
        self._check_rate(key)
        # A prober that is a suspect itself may be cut off.
        if not prober.alive or not is_prober(prober):
            return 0
        # By identity and endpoint, so that a registrar counts once however often it reports.
        name = f"{principal.subject.owner or owner.instance_id} at {prober.name} for {prober.service}"
        now = time.monotonic()
        statements = list(self._statements(name, prober, report.results, now))
        await replace_statements(self._database, name, statements, now)
        return len(statements)

    def _check_rate(self, key: Key) -> None:
        now = time.monotonic()
        if now - self._reported_at.get(key, float("-inf")) < MIN_REPORT_INTERVAL:
            raise LimitError(
                f"the last results of this endpoint are less than {MIN_REPORT_INTERVAL:g} s old; send all results of a "
                "request together",
                "probes",
                MIN_REPORT_INTERVAL,
            )
        if len(self._reported_at) >= _MAX_REMEMBERED:
            self._reported_at = {each: at for each, at in self._reported_at.items() if now - at < MIN_REPORT_INTERVAL}
        self._reported_at[key] = now

    def _statements(
        self, name: str, prober: Endpoint, results: Sequence[ProbeResult], now: float
    ) -> Iterator[Statement]:
        for result in results:
            target = self._find(prober.service, result.endpoint)
            if target is None or not is_silent(target) or opts_out(target):
                continue
            if target.address == prober.address or target.registration.incarnation != result.incarnation:
                continue
            yield Statement(
                prober=name,
                address=prober.address,
                kind=result.outcome,
                at=now - result.ago,
                endpoint_id=target.id,
                incarnation=result.incarnation,
                reached_at=None if result.reached_ago is None else now - result.reached_ago,
                attempts=result.attempts,
                registrar_of=prober.service,
            )

    def _find(self, service: str, name: str) -> Endpoint | None:
        try:
            return self._cache.find(endpoint_key(service, name))
        except InvalidError:
            return None
