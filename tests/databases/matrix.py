"""Runs the tests that speak SQL against each PostgreSQL that can be had: `make databases`."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from databases.servers import MAJORS, find
from harness.cluster import PROGRAMS_VARIABLE, cluster

_TESTS = (
    "tests/databases",
    "tests/integration/test_store.py",
    "tests/integration/test_migrations.py",
    "tests/integration/test_database_refuses.py",
    "tests/integration/test_restored_database.py",
    "tests/integration/registry/rollout",
    "tests/integration/registry/background",
)
"""What speaks SQL without a server in front, and what depends on the version of the server."""


def main() -> int:
    """Run the tests on each version; return 1 if one failed, or no version could be had."""
    wanted = [int(each) for each in os.environ.get("VERSIONS", "").split()] or list(MAJORS)
    results: dict[int, str] = {}
    for major in wanted:
        programs, version = find(major)
        if programs is None:
            results[major] = f"skipped: {version}"
            continue
        _say(f"PostgreSQL {version} of {programs}")
        results[major] = f"{'passed' if _run(programs) else 'FAILED'}: {version} of {programs}"
    _say("\nPostgreSQL")
    for major, result in results.items():
        _say(f"{major:>4}  {result}")
    ran = [result for result in results.values() if not result.startswith("skipped")]
    return 0 if ran and all(result.startswith("passed") for result in ran) else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(programs: Path) -> bool:
    # No test lets this machine crash.
    with cluster(programs=programs, max_connections="400", fsync="off", full_page_writes="off") as server:
        env = {**os.environ, "REGISTRY_TEST_DATABASE_URL": server.url, PROGRAMS_VARIABLE: str(programs)}
        # One after another: an open transaction of one test keeps the rows of another one from being cleaned.
        options = ["-m", "databases or not (faults or proof or pictures)", *sys.argv[1:]]
        command = [sys.executable, "-m", "pytest", "-q", *_TESTS, *options]
        return subprocess.run(command, env=env, check=False).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
