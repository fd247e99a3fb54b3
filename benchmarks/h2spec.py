"""h2spec: how many of its tests of RFC 9113 and RFC 7541 a server passes."""

import re
import subprocess

from msgspec import Struct

from benchmarks.peers.go_programs import H2SPEC, program

_TIMEOUT = 1
"""Seconds that each test waits for the server."""
_COUNTS = re.compile(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed")


class Conformance(Struct, frozen=True):
    """How many tests there are, and how they ended."""

    tests: int
    passed: int
    skipped: int
    failed: int


def conformance(port: int) -> Conformance:
    """Run all tests but those that it calls strict.

    Raises:
        RuntimeError: it came to no result.
    """
    # It ends with 1 when one of them fails, as with every server that is compared.
    command = [program(H2SPEC), "--port", str(port), "--timeout", str(_TIMEOUT)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    counts = _COUNTS.search(run.stdout)
    if counts is None:
        raise RuntimeError(f"h2spec came to no result: {run.stdout[-1000:]} {run.stderr[-1000:]}")
    return Conformance(*map(int, counts.groups()))
