"""The compiler's work on what somebody wants to apply."""

import asyncio
import zlib

import msgspec
import pytest

from meshconfig.position import Severity
from meshconfig.resource import Catalog
from registry.compiler import compiler
from registry.compiler.compiler import Compiler
from registry.compiler.job import CompareMesh, Compile, Compiled, Job, Result, Shown, ShowService
from registry.compiler.job_queue import JobQueue
from registry.compiler.work import work
from registry.errors import LimitError, UnavailableError
from registryctl.mesh.api import APPLY_TIMEOUT

FILES = {
    "services/web.yaml": "service: web\n",
    "gateways/staging.yaml": "listen: {port: 50051}\nselect: {services: [shop, user]}\npaths: true\n"
    "hosts: '{service}.grpc.example'\n",
}
CATALOG = Catalog({"shop": {}, "user": {}}, {"shop": ("user.v1.Users",), "user": ("user.v1.Users",)})


def compiled(catalog: Catalog, *, strict: bool = False) -> Compiled:
    """Return the result of a plan for these files."""
    document = msgspec.json.encode({"files": FILES, "strict": strict, "unproven": True})
    result = work(Compile(document, catalog, plan=True))
    assert isinstance(result, Compiled), result
    return result


def test_a_plan_warns_of_what_a_gateway_cannot_serve() -> None:
    """Two services announce one gRPC service: by path only one of them can be reached, which is no error."""
    result = compiled(CATALOG)
    (warning,) = result.faults
    assert str(warning).startswith("gateways/staging.yaml: warning: shop and user announce the gRPC service user.v1")
    assert result.plan is not None
    assert result.plan.warnings == (warning,)
    assert "staging" in result.resources


@pytest.mark.parametrize(("catalog", "refused"), [(CATALOG, True), (Catalog({"shop": {}, "user": {}}), False)])
def test_strict_makes_errors_of_them(catalog: Catalog, refused: bool) -> None:
    """As of every other warning; without one nothing is refused."""
    result = compiled(catalog, strict=True)
    assert [fault.severity for fault in result.faults] == [Severity.ERROR] * refused
    assert (result.resources == {}) == refused


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({"mesh.yaml": "environment: test\n"}, {"mesh.yaml": "# a comment\nenvironment: test\n"}, False),
        ({}, {"mesh.yaml": "environment: production\n"}, False),
        ({"mesh.yaml": "environment: test\n"}, {}, True),
        ({}, {"mesh.yaml": "admin: {port: 9999}\n"}, True),
        ({}, {"mesh.yml": "admin: {port: 9999}\n"}, True),
        ({"mesh.yaml": "an_older_key: 1\n"}, {"mesh.yaml": "environment: test\n"}, True),
    ],
)
def test_a_change_of_what_all_services_share_is_noticed(
    before: dict[str, str], after: dict[str, str], changes: bool
) -> None:
    """Also where it is in the bootstraps alone, and where the former file cannot be read; not by its wording."""
    base = zlib.compress(msgspec.json.encode(before))
    document = msgspec.json.encode({"files": FILES | after, "unproven": True})
    result = work(Compile(document, CATALOG, base_files=base))
    assert isinstance(result, Compiled), result
    assert result.changes_mesh is changes
    assert work(CompareMesh(base, zlib.compress(msgspec.json.encode(after)))) == Shown(b"true" if changes else b"false")


def test_damaged_files_of_the_revision_in_force_do_not_prevent_the_next_one() -> None:
    """They count as different."""
    result = work(Compile(msgspec.json.encode({"files": FILES}), CATALOG, base_files=b"damaged"))
    assert isinstance(result, Compiled), result
    assert (result.changes_mesh, result.resources != {}) == (True, True)


def test_registryctl_waits_for_as_long_as_the_registry_works() -> None:
    """Behind as many jobs as may wait, and the gateways: who gave up would not know what was applied."""
    jobs = Compiler().changes.capacity + 1
    assert jobs * (compiler._TIMEOUT + compiler._END_TIMEOUT) < APPLY_TIMEOUT


class Work:
    """The work of a queue, which goes on when the test says so.

    Attributes:
        begun: the names of the services of the jobs that were begun.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = asyncio.Event()

    async def __call__(self, job: Job) -> Result:
        """Do a job, which is called like its service."""
        assert isinstance(job, ShowService)
        self.begun.append(job.name)
        await self.go_on.wait()
        if job.name == "defect":
            raise UnavailableError(job.name)
        return Shown(job.name.encode())


async def settled() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_one_principal_has_a_share_of_the_places() -> None:
    """The others are free for others, until all are taken; each is free again when its request ends."""
    queue = JobQueue("plans", 4, 2, Work())
    with queue.place("ann"), queue.place("ann"):
        with pytest.raises(LimitError, match="2 plans run or wait, 2 of them yours"), queue.place("ann"):
            pass
        with queue.place("bob"), queue.place("cat"), pytest.raises(LimitError), queue.place("dan"):
            pass
    for _ in range(2):
        with queue.place("ann"), queue.place("ann"):
            pass
    assert not queue._places


def test_those_who_read_keep_no_apply_waiting() -> None:
    """However many documents and plans run and wait, a change runs at once."""

    async def flood() -> list[Result]:
        work = Work()
        jobs = Compiler()
        for queue in (jobs.changes, jobs.plans, jobs.reads):
            queue._work = work
        reads = [
            asyncio.create_task(jobs.reads.run_shared(number, f"token:{number}", ShowService(b"", f"r{number}")))
            for number in range(jobs.reads.capacity)
        ]
        await settled()
        with pytest.raises(LimitError):
            await jobs.reads.run_shared("one more", "token:x", ShowService(b"", "x"))
        with jobs.changes.place("ann"):
            change = asyncio.create_task(jobs.changes.run(ShowService(b"", "change")))
            await settled()
        assert work.begun == ["r0", "change"]
        work.go_on.set()
        return await asyncio.gather(*reads, change)

    assert len(asyncio.run(flood())) == compiler._MAX_READS + 1


def test_one_job_answers_all_who_ask_for_the_same() -> None:
    """They need one place; it goes on when the first of them has gone; and a failure is not kept."""

    async def ask() -> None:
        work = Work()
        queue = JobQueue("documents", 4, 1, work)
        waiting = [asyncio.create_task(queue.run_shared("a", "ann", ShowService(b"", "a"))) for _ in range(9)]
        await settled()
        waiting[0].cancel()
        await settled()
        work.go_on.set()
        assert await asyncio.gather(*waiting[1:]) == [Shown(b"a")] * 8
        assert (work.begun, queue._shared) == (["a"], {})
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await queue.run_shared("d", "ann", ShowService(b"", "defect"))
        assert work.begun == ["a", "defect", "defect"]

    asyncio.run(ask())
