"""Prometheus and its tool, where they are installed, and a running one."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness.no_tls import NO_TLS
from harness.process import eventually, free_port, running

_CONFIGURATION = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yaml"


def program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``; skip the test that needs it where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian, Ubuntu: apt install prometheus)")
    return path


def promtool(*arguments: str, text: str = "") -> str:
    """Run ``promtool``; return what it said, and fail with it when it finds a fault."""
    done = subprocess.run([program("promtool"), *arguments], input=text, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def scrape_parameters_of_envoys() -> dict[str, list[str]]:
    """Return the parameters by which our scrape configuration keeps a part of an Envoy's statistics."""
    jobs = yaml.safe_load(_CONFIGURATION.read_text())["scrape_configs"]
    (parameters,) = [job["params"] for job in jobs if job["job_name"] == "envoys"]
    kept: dict[str, list[str]] = parameters
    return kept


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self.moment: float | None = None
        """The time of which ``evaluate`` asks; None: now."""
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False, verify=NO_TLS)

    def ready(self) -> bool:
        """Tell whether it answers."""
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def targets(self) -> list[dict[str, Any]]:
        """Return the targets that it scrapes."""
        active: list[dict[str, Any]] = self.client.get("/api/v1/targets").json()["data"]["activeTargets"]
        return active

    def failed_refreshes(self) -> float:
        """Return how often service discovery could not be asked."""
        text = self.client.get("/metrics").text
        counted = re.search(r"^prometheus_sd_http_failures_total(?:\{.*\})? (\S+)$", text, re.MULTILINE)
        return float(counted[1]) if counted else 0.0

    def evaluate(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of a query like ``query``; fail with what Prometheus says against the expression."""
        moment = {} if self.moment is None else {"time": str(self.moment)}
        answer = self.client.get("/api/v1/query", params={"query": expression, **moment})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        results: list[dict[str, Any]] = answer.json()["data"]["result"]
        return results

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of a query: the labels and the value of each series."""
        results: list[dict[str, Any]] = self.client.get("/api/v1/query", params={"query": expression}).json()["data"][
            "result"
        ]
        return results


@contextlib.contextmanager
def prometheus(directory: Path, configuration: str) -> Iterator[Prometheus]:
    """Run a Prometheus with that configuration until the end of the block."""
    port = free_port()
    path = directory / f"prometheus-{port}.yaml"
    path.write_text(configuration)
    log = path.with_suffix(".log")
    where = [f"--storage.tsdb.path={directory / f'tsdb-{port}'}", f"--web.listen-address=127.0.0.1:{port}"]
    with running([program("prometheus"), f"--config.file={path}", *where], log=log) as process:
        started = Prometheus(port)
        with contextlib.closing(started.client):
            eventually(
                lambda: process.poll() is not None or started.ready(), within=20, said=lambda: log.read_text()[-2000:]
            )
            assert process.poll() is None, log.read_text()[-2000:]
            yield started
