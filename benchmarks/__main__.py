"""Run benchmarks and write their page: ``python -m benchmarks [--quick] [--check] [part …]``."""

import argparse
import signal
import sys
import time
from importlib import import_module

from rich.console import Console

from benchmarks import page, sizing
from benchmarks.machine import this_machine
from benchmarks.plan import Plan
from benchmarks.plot import draw
from benchmarks.report import Part, load_part

PARTS = {
    "discovery": "Discovery: polls answered",
    "propagation": "Propagation: from a report to Envoy",
    "edge": "The edge: discovery from the registrar beside",
    "streams": "Streams: pushes over gRPC",
    "heartbeats": "Heartbeats: leases renewed durably",
    "registries": "Registries: beside Eureka and ZooKeeper",
    "lists": "Lists: services, endpoints and targets",
    "access": "Access: what the decision costs",
    "scale": "Scale: what many endpoints cost",
    "traffic": "Traffic: digests, shares and errands",
    "mesh": "Mesh configuration: from definitions to every Envoy",
    "footprint": "Footprint of the sidecar",
}


def main() -> int:
    """Measure what was asked for, keep it, and write the page; return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"one of {', '.join(PARTS)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="two short rounds: rough figures, no page")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    given = parser.parse_args()
    unknown = set(given.parts) - PARTS.keys()
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    # Unwinds the stack, so that whatever was started is ended; the default would leave PostgreSQL behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    parts = [_measure(name, given.quick, console) for name in given.parts or PARTS]
    for part in parts:
        page.show(console, part)
    if not given.quick:
        kept = [found for found in map(load_part, PARTS) if found]
        sizing.write(kept)
        page.write(kept, {part.name: draw(part) for part in kept})
    missed = given.check and any(bar.met is False for part in parts for bar in part.bars)
    return 1 if missed or any(part.failed for part in parts) else 0


def _measure(name: str, quick: bool, console: Console) -> Part:
    console.rule(f"[bold]{PARTS[name]}", align="left")
    part = Part(name, PARTS[name], this_machine(), quick=quick)
    begun = time.monotonic()
    try:
        import_module(f"benchmarks.{name}").run(part, Plan(quick=quick, console=console))
    except Exception as error:  # noqa: BLE001  # the other parts are not lost with it
        console.print_exception()
        part.leave_out(f"the rest of {name}", f"it failed: {error!r}")
        part.failed = True
    part.seconds = round(time.monotonic() - begun, 1)
    if not quick and not part.failed:
        part.save()
    return part


if __name__ == "__main__":
    sys.exit(main())
