"""The audit: what was refused, or would be refused if access were on."""

import time

import structlog

from registry.auth.decision import Refusal
from registry.auth.principal import Principal
from registry.metrics import ACCESS_REFUSALS

log = structlog.get_logger()

_LOG_INTERVAL = 60.0
"""Seconds in which the same refusal is logged once: a refused Envoy asks again for ever."""
_MAX_LOGGED = 10_000
"""Refusals that are remembered as logged."""

_Refused = tuple[str, str, str, str, bool]
"""Principal, verb, service, cause, and whether it is enforced."""


class Audit:
    """Notes refusals for operators: each is counted, and logged once a minute."""

    def __init__(self) -> None:
        self._logged: dict[_Refused, float] = {}
        """When each refusal was last logged (monotonic)."""

    def note_refusal(self, principal: Principal, refusal: Refusal, enforced: bool) -> None:  # as Observer
        """Note a refusal: the policy's observer.

        Args:
            principal: the sender of the request.
            refusal: what was refused, and why.
            enforced: whether it was refused, or would only be if access were on.
        """
        asked = refusal.request
        decision = "refused" if enforced else "would_refuse"
        ACCESS_REFUSALS.labels(asked.verb.value, decision).inc()
        key = (principal.subject.name or principal.address, asked.verb.value, asked.service, refusal.cause, enforced)
        now = time.monotonic()
        if now - self._logged.get(key, -_LOG_INTERVAL) < _LOG_INTERVAL:
            return
        if len(self._logged) >= _MAX_LOGGED:
            self._logged.clear()
        self._logged[key] = now
        log.warning(
            "access_refused" if enforced else "access_would_refuse",
            principal=principal.name,
            verb=asked.verb.value,
            service=asked.service,
            endpoint=asked.endpoint,
            reason=refusal.reason,
        )
