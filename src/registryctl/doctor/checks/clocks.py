"""Whether clocks agree. Leases go by PostgreSQL's alone; what people read goes by all of them."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped

_TOLERATED = 2.0


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    asked = [(one, one.state) for one in look.answering if one.state is not None]
    if not asked:
        yield skipped("clock-registry", "no registry tells its state")
        yield skipped("clock-postgresql", "no registry tells its state")
        return
    offsets = [(one.url, state["at"] - one.asked_at, one.took / 2) for one, state in asked]
    troubles = [
        f"{url} is {abs(offset):.1f} s {_direction(offset)} this machine"
        for url, offset, error in offsets
        if abs(offset) - error > _TOLERATED
    ]
    yield judged("clock-registry", troubles, "", Mark.WARNING)
    ahead = [(where, state["database"]) for where, state in look.states if state["database"]["answers"]]
    if not ahead:
        yield skipped("clock-postgresql", "PostgreSQL is away")
        return
    yield judged(
        "clock-postgresql",
        (
            f"{where}PostgreSQL is {abs(one['clock_ahead']):.1f} s {_direction(one['clock_ahead'])} the registry"
            for where, one in ahead
            if abs(one["clock_ahead"]) - one["took"] / 2 > _TOLERATED
        ),
        "",
        Mark.WARNING,
    )


def _direction(offset: float) -> str:
    return "ahead of" if offset > 0 else "behind"
