"""Catalogue of the rules, by category, in the order of the report; docs/checks.md explains each of them."""

from collections.abc import Sequence

from registry.core.verdict import (
    access,
    clocks,
    expiry,
    mesh,
    overrides,
    postgresql,
    presence,
    readiness,
    registrars,
    replicas,
    services,
    shares,
    shifts,
    snapshot,
    subscribers,
    traffic,
)
from registry.core.verdict.finding import Rule

CATEGORIES: dict[str, Sequence[Rule]] = {
    "registry": readiness.RULES,
    "access": access.RULES,
    "postgresql": postgresql.RULES,
    "snapshot": snapshot.RULES,
    "replicas": replicas.RULES,
    "clocks": clocks.RULES,
    "expiry": expiry.RULES,
    "registrars": registrars.RULES,
    "services": (*services.RULES, *presence.RULES, *shares.RULES, *shifts.RULES),
    "traffic": traffic.RULES,
    "overrides": overrides.RULES,
    "subscribers": subscribers.RULES,
    "mesh": mesh.RULES,
}
"""The rules of each category."""
