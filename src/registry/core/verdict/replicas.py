"""Rules about the registry's processes: whether each of them does its work."""

from registry.core.status import ABILITY_WORDS, FailureState
from registry.core.verdict.facts import Facts
from registry.core.verdict.finding import Conclusion, Rule, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus, counted


def _working(facts: Facts) -> Conclusion:
    """Check what the processes report of themselves."""
    processes = facts.state.processes
    failures = [(process.name, failure) for process in processes for failure in process.failures]
    overdue = any(failure.overdue for _, failure in failures)
    names = {name for name, _ in failures}
    return conclude(
        counted(len(names), "process cannot do all of its work", "processes cannot do all of their work"),
        [_failing(name, failure) for name, failure in sorted(failures, key=lambda each: (each[0], each[1].ability))],
        status=FindingStatus.FAILURE if overdue else FindingStatus.WARNING,
        fact=f"{len(processes)} report",
    )


def _failing(name: str, failure: FailureState) -> str:
    extent = "" if failure.total else " each time"
    consequence = "; what it cuts off from the registry expires" if failure.overdue else "; leases are credited"
    text = f"{name} cannot {ABILITY_WORDS[failure.ability]}{extent}, for {failure.seconds:.0f} s"
    return f"{text}: {failure.reason}{consequence}"


def _heard(facts: Facts) -> Conclusion:
    """Check for processes that went silent; one that is connected to PostgreSQL all the while hangs."""
    silent, hanging = facts.state.silent_processes, facts.state.hanging
    if silent is None:
        return skip("PostgreSQL, through which processes report, is away")
    hangs = min(hanging, len(silent))
    lines = [
        f"{process.name} has not reported for {ago(process.seconds)}, and did not say that it stops"
        for process in silent
    ]
    if hangs:
        lines.append(
            f"{counted(hangs, 'of them is', 'of them are')} connected to PostgreSQL and hangs: Envoys and registrars "
            "that are connected to it hear nothing; stop it"
        )
    return conclude(
        counted(len(silent), "registry process is silent", "registry processes are silent"),
        lines,
        status=FindingStatus.FAILURE if hangs else FindingStatus.WARNING,
        fact=f"{len(facts.state.processes)} report",
    )


RULES = (
    Rule("replicas-working", "no process reports that it cannot do its work", _working),
    Rule("replicas-heard", "no registry process has fallen silent", _heard),
)
