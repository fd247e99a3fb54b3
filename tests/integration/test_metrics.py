"""What the registry counts, as Prometheus reads it."""

import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
from harness.calls import Call, digest
from harness.no_tls import NO_TLS
from harness.process import eventually
from harness.prometheus import promtool
from harness.registry import Registry, registry
from prometheus_client.parser import text_string_to_metric_families

PROPAGATION = "registry_propagation_seconds"


def samples(found: Registry) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return each sample by its name and the values of its labels."""
    text = found.client.get("/metrics").text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def propagated(found: Registry) -> tuple[float, float]:
    """Return how many changes reached an Envoy, and the sum of their seconds."""
    told = samples(found)
    return told[f"{PROPAGATION}_count", ("poll",)], told[f"{PROPAGATION}_sum", ("poll",)]


def test_propagation_is_counted_once_for_each_envoy(shared_registry: Registry, service: str) -> None:
    """From the change to the answer: at once for a held poll, later for a slow one, never for one that starts."""
    shared_registry.register(service, "10.0.0.1:80")
    before, seconds = propagated(shared_registry)
    held = shared_registry.poll(service).json()["version_info"]
    assert propagated(shared_registry)[0] == before
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(shared_registry.poll, service, version=held, hold=20) for _ in range(3)]
        time.sleep(0.5)
        shared_registry.register(service, "10.0.0.2:80")
        newest = {one.result().json()["version_info"] for one in waiting}
    count, sum_of = propagated(shared_registry)
    assert (len(newest), count - before) == (1, 3)
    assert 0 < sum_of - seconds < 1.5
    (held,) = newest
    shared_registry.register(service, "10.0.0.3:80")
    time.sleep(1.0)
    shared_registry.poll(service, version=held)
    # One that refuses comes again and again: it is not counted again.
    for _ in range(5):
        shared_registry.poll(service, version=held)
    later, slow_sum = propagated(shared_registry)
    assert later - count == 1
    assert 1.0 < slow_sum - sum_of < 2.0


def test_propagation_through_another_process_goes_by_the_databases_clock(
    database: str, workplace: Path, service: str
) -> None:
    """The process that answers is not the one that was told; both know the database's time."""
    with registry(database, workplace) as one, registry(database, workplace) as two:
        one.register(service, "10.0.0.1:80")
        eventually(lambda: two.statuses(service) != {}, within=5)
        held = two.poll(service).json()["version_info"]
        before, seconds = propagated(two)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(two.poll, service, version=held, hold=20)
            time.sleep(0.5)
            one.register(service, "10.0.0.2:80")
            assert waiting.result().status_code == 200
        count, sum_of = propagated(two)
        assert count - before == 1
        assert 0 < sum_of - seconds < 0.5
        assert samples(two)["registry_clock_error_seconds", ()] < 0.1


def test_several_workers_answer_as_one(database: str, workplace: Path, service: str) -> None:
    """Counters are sums over all workers, ended ones too, whichever is asked; of each gauge there is one."""
    with registry(database, workplace, workers=2) as found:
        # Each reads the database for itself, and either may be the first.
        eventually(
            lambda: all(httpx.get(f"{found.url}/readyz", trust_env=False, verify=NO_TLS).is_success for _ in range(20)),
            within=30,
        )
        found.register(service, "10.0.0.1:80")
        asked = 40
        for _ in range(asked):
            # A connection each: the kernel spreads them.
            httpx.post(
                f"{found.url}/v3/discovery:endpoints", json={"resource_names": [service]}, trust_env=False
            ).raise_for_status()
        fresh = [httpx.get(f"{found.url}/metrics", trust_env=False, verify=NO_TLS).text for _ in range(6)]
        for text in fresh:
            families = {family.name: family for family in text_string_to_metric_families(text)}
            polls = {sample.labels["code"]: sample.value for sample in families["registry_polls"].samples}
            assert polls["200"] == asked
            assert [sample.value for sample in families["registry_sweep_leader"].samples] in ([1.0], [0.0])
            (memory,) = families["process_resident_memory_bytes"].samples
            # Two processes with a server each.
            assert 60e6 < memory.value < 1e9
            (processor,) = families["process_cpu_seconds"].samples
            # Forks: what they share was imported at the cost of their parent.
            assert processor.value > 0.1
            (build,) = families["registry_build_info"].samples
            assert build.value == 1.0
        eventually(lambda: samples(found).get(("registry_endpoints", ("HEALTHY",))) == 1.0, within=30)
        for number in range(10):
            sent = digest("web", f"z{number}", [Call("web", "shop", 100, zone=f"z{number}")])
            httpx.post(f"{found.url}/v1/traffic", json=sent, trust_env=False, verify=NO_TLS).raise_for_status()
        # A worker tells the others of its pairs every five seconds.
        eventually(lambda: [_requests(found) for _ in range(6)] == [1000.0] * 6, within=30, every=0.5)
        # What an ended worker has counted still counts, and its files do not stay.
        for _ in range(2):
            directory, worker = _replaced_worker(found)
            text = httpx.get(f"{found.url}/metrics", trust_env=False, verify=NO_TLS).text
            assert (
                sum(map(float, re.findall(r'^registry_polls_total{.*code="200".*} (.*)$', text, re.MULTILINE))) == asked
            )
            assert not list(directory.glob(f"*_{worker}.*"))
        assert len(list(directory.glob("counter_*.db"))) <= 3


def _replaced_worker(found: Registry) -> tuple[Path, int]:
    """Kill a worker, wait until another one serves, and return the directory of metrics and the killed one's id."""
    parent = psutil.Process(found.process.pid)
    worker, *_ = before = parent.children()
    (directory,) = {Path(file.path).parent for file in worker.open_files() if file.path.endswith(".db")}
    worker.kill()

    def replaced() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(child.net_connections("tcp") for child in parent.children() if child not in before)
        return False

    eventually(replaced, within=60)
    return directory, worker.pid


def _requests(found: Registry) -> float:
    """Return the requests of all pairs, as a new connection reaches any of the workers."""
    text = httpx.get(f"{found.url}/metrics", trust_env=False, verify=NO_TLS).text
    return sum(map(float, re.findall(r"^headcount_traffic_requests_total\{.*\} (\d+)$", text, re.MULTILINE)))


def test_no_endpoint_is_a_label(shared_registry: Registry, service: str) -> None:
    """Endpoints come and go: a label of their names would make a series of each for ever."""
    shared_registry.register(service, "10.98.76.54:3210", instance_id="i-label")
    shared_registry.poll(service)
    shared_registry.client.get(f"/v1/services/{service}/endpoints/10.98.76.54:3210")
    shared_registry.client.get("/no/such/path/10.98.76.54")
    text = shared_registry.client.get("/metrics").text
    assert re.findall(r"10\.98\.76|:3210|i-label|/no/such", text) == []
    assert f'service="{service}"' not in text
    assert 'route="/v1/services/{service}/endpoints/{endpoint}"' in text


def test_promtool_finds_no_fault(shared_registry: Registry, service: str) -> None:
    """Names, units and help are as Prometheus' own linter wants them."""
    shared_registry.poll(service)
    text = shared_registry.client.get("/metrics").text
    # It wants seconds; these are milliseconds, as Envoy counts them.
    text = re.sub(r"^(# \w+ )?headcount_traffic_milliseconds.*\n", "", text, flags=re.MULTILINE)
    assert promtool("check", "metrics", text=text) == ""
