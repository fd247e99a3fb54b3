"""A registrar that lacks what a check needs: that says nothing about the app."""

import sys
from pathlib import Path

import pytest
from harness.probing import probe
from harness.scarcity import few_descriptors

from registrar.checks.check import Options
from registrar.checks.exec import ExecOptions
from registrar.checks.file import FileOptions
from registrar.checks.grpc import GrpcOptions
from registrar.checks.http import HttpOptions
from registrar.checks.result import Outcome
from registrar.checks.tcp import TcpOptions

CHECKS: list[Options] = [
    TcpOptions(),
    HttpOptions(path="/healthz"),
    GrpcOptions(),
    ExecOptions(command=(sys.executable, "-c", "")),
    FileOptions(path=str(Path(__file__).resolve())),
]


@pytest.mark.parametrize("options", CHECKS, ids=lambda options: type(options).__name__)
async def test_a_check_without_descriptors_is_no_evidence(options: Options) -> None:
    """The app may be as well as before; nothing is counted, and the detail names the registrar."""
    with few_descriptors(spare=0):
        result = await probe(options)
    assert result.outcome is Outcome.UNKNOWN, result
    assert "the registrar itself cannot check" in result.detail
    assert "Too many open files" in result.detail
