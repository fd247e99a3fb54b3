"""Fixtures of the faults, and the table of what they measured."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.cluster import Cluster, cluster
from harness.figures import Figures

_KEY = pytest.StashKey[Figures]()
_PAGE = "FAULTS_PAGE"
"""The environment variable that names the page into which the table is written."""


def pytest_configure(config: pytest.Config) -> None:
    """Begin an empty table."""
    config.stash[_KEY] = Figures()


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> Figures:
    """Take the measured figures of the whole run."""
    return pytestconfig.stash[_KEY]


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL on a TCP port that may be killed, as long as it is started again."""
    with cluster() as started:
        yield started


@pytest.fixture
def killable(own_cluster: Cluster) -> Iterator[Cluster]:
    """The same, and it runs again when the test is over."""
    yield own_cluster
    if not own_cluster.running():
        own_cluster.start()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures, and write them into the page if one is named."""
    figures = config.stash[_KEY]
    if not figures.noted:
        return
    terminalreporter.section("figures")
    terminalreporter.write_line(figures.table())
    page = os.environ.get(_PAGE)
    if page:
        skipped = terminalreporter.stats.get("skipped", [])
        figures.write(Path(page), [f"Not run: {_reason(report)}." for report in skipped])


def _reason(report: pytest.TestReport) -> str:
    representation = report.longrepr
    why = representation[2] if isinstance(representation, tuple) else str(representation)
    return f"`{report.nodeid.rpartition('::')[2]}` ({why.removeprefix('Skipped: ')})"
