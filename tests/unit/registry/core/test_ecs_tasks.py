"""Which tasks ECS is asked for, and what its answers say."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.making import endpoint, registration

from registry.core.ecs_tasks import (
    MAX_CLUSTERS,
    MAX_PAUSE,
    MAX_SEEN,
    MAX_TASKS,
    MIN_PAUSE,
    REPEAT_INTERVAL,
    Cluster,
    EcsTasks,
    TaskRef,
    task_of,
)

REGION = "eu-west-1"
ARN = f"arn:aws:ecs:{REGION}:111122223333:cluster/prod"
TASK = "158d1c8083dd49d6b527399fd6414f5c"
PROD = Cluster(ARN, REGION)


def ref(number: int, cluster: Cluster = PROD) -> TaskRef:
    """Return a task by its number."""
    return TaskRef(cluster, f"{number:032x}")


def watching(*refs: TaskRef) -> EcsTasks:
    """Return the tasks of these suspects."""
    tasks = EcsTasks()
    tasks.watch(refs)
    return tasks


def answer(tasks: EcsTasks, now: float, status: str = "RUNNING", reason: str = "") -> list[TaskRef]:
    """Ask what is due, answer the same for each task, and return what was asked."""
    request = tasks.next_request(now)
    if request is None:
        return []
    cluster, refs = request
    tasks.answered(cluster, refs, {each.task_id: (status, reason) for each in refs}, now)
    return refs


def test_the_registrar_names_cluster_and_task() -> None:
    """The instance id is the task, unless it was configured and the task is named beside it."""
    by_id = endpoint(stored=registration(TASK, metadata={"ecs_cluster": ARN}))
    assert task_of(by_id, "") == TaskRef(PROD, TASK)
    by_key = endpoint(stored=registration("shop-1", metadata={"ecs_cluster": ARN, "ecs_task": TASK}))
    assert task_of(by_key, "") == TaskRef(PROD, TASK)
    short = endpoint(stored=registration(TASK, metadata={"ecs_cluster": "prod"}))
    assert task_of(short, REGION) == TaskRef(Cluster("prod", REGION), TASK)
    assert task_of(short, "") is None


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"ecs_cluster": 7},
        {"ecs_cluster": ["prod"]},
        {"ecs_cluster": ""},
        {"ecs_cluster": "prod/../x"},
        {"ecs_cluster": "p" * 256},
        {"ecs_cluster": ARN, "ecs_task": 7},
        {"ecs_cluster": ARN, "ecs_task": "not a task"},
        {"ecs_cluster": ARN, "ecs_task": f"{TASK},{TASK}"},
        {"ecs_cluster": ARN.replace("eu-west-1", "evil.example.com")},
        {"ecs_cluster": ARN.replace("eu-west-1", "cn-north-1")},
        {"ecs_cluster": ARN.replace("eu-west-1", "us-iso-east-1")},
        {"ecs_cluster": ARN.replace("111122223333", "1")},
        {"ecs_cluster": ARN + " "},
    ],
)
def test_what_is_no_name_of_ecs_is_not_asked_for(metadata: dict[str, object]) -> None:
    """Registrars send these texts: they must not choose a host, nor fail a request for other tasks."""
    assert task_of(endpoint(stored=registration(TASK, metadata=metadata)), REGION) is None


def test_stopped_is_the_platforms_word() -> None:
    """STOPPED is certain at once, with its reason; STOPPING and what runs say nothing."""
    tasks = watching(ref(1))
    for status in ("RUNNING", "STOPPING", "DEPROVISIONING", "", "stopped", "INVENTED"):
        tasks.answered(PROD, [ref(1)], {ref(1).task_id: (status, "")}, 1.0)
        assert tasks.stopped(ref(1)) is None
    tasks.answered(PROD, [ref(1)], {ref(1).task_id: ("STOPPED", "Essential\ncontainer in task exited")}, 2.0)
    stopped = tasks.stopped(ref(1))
    assert stopped is not None
    assert (stopped.status, stopped.reason) == ("STOPPED", "Essential container in task exited")
    assert tasks.next_request(1_000.0) is None


def test_missing_counts_for_a_task_that_was_seen() -> None:
    """A wrong cluster does not know the task either; ECS forgets a stopped one after an hour."""
    tasks = watching(ref(1), ref(2))
    tasks.answered(PROD, [ref(1)], {ref(1).task_id: ("RUNNING", "")}, 1.0)
    tasks.answered(PROD, [ref(1), ref(2)], {each.task_id: ("MISSING", "") for each in (ref(1), ref(2))}, 2.0)
    assert tasks.stopped(ref(1)) is not None
    assert tasks.stopped(ref(2)) is None


def test_an_error_says_nothing_and_holds_up_its_cluster_alone() -> None:
    """The others are asked meanwhile; the pause doubles up to its limit, and an answer ends it."""
    other = Cluster("other", REGION)
    tasks = watching(ref(1), ref(2, other))
    assert tasks.failed(PROD, "AccessDenied", 0.0)
    assert not tasks.failed(PROD, "AccessDenied", 0.0)
    assert tasks.failed(PROD, "ClusterNotFound", 0.0)
    assert [(each.cluster, each.reason, each.since) for each in tasks.failures] == [(PROD, "ClusterNotFound", 0.0)]
    assert answer(tasks, 1.0) == [ref(2, other)]
    assert answer(tasks, 2.0) == []
    assert tasks.stopped(ref(1)) is None
    tasks = watching(ref(1))
    now, pauses = 0.0, []
    for _ in range(6):
        tasks.failed(PROD, "ThrottlingException", now)
        began = now
        while tasks.next_request(now) is None:
            now += 0.5
        pauses.append(now - began)
    assert pauses[0] == MIN_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE
    assert tasks.answered(PROD, [ref(1)], {}, now)
    assert tasks.failures == []


def test_made_up_clusters_do_not_delay_one_that_answers() -> None:
    """The one that answers is asked on time; the others share what is left."""
    bad = [Cluster(f"bad-{number}", REGION) for number in range(150)]
    tasks = watching(ref(0), *(ref(number, cluster) for number, cluster in enumerate(bad)))
    asked: Counter[Cluster] = Counter()
    for second in range(400):
        request = tasks.next_request(float(second))
        if request is None:
            continue
        cluster, refs = request
        asked[cluster] += 1
        if cluster == PROD:
            tasks.answered(cluster, refs, {refs[0].task_id: ("RUNNING", "")}, float(second))
        else:
            tasks.failed(cluster, "ClusterNotFound", float(second))
    # Once it has answered, which is after one turn of all at the latest.
    assert asked[PROD] >= (400 - len(bad)) / (REPEAT_INTERVAL + 1)
    assert min(asked[cluster] for cluster in bad) >= 1


def test_memory_is_bounded() -> None:
    """What a registrar names is forgotten with its endpoint, and there is a limit to clusters and tasks."""
    tasks = EcsTasks()
    tasks.watch(ref(number, Cluster(f"c-{number}", REGION)) for number in range(MAX_CLUSTERS + 50))
    assert tasks.watched == MAX_CLUSTERS
    for batch in range(MAX_SEEN // MAX_TASKS + 5):
        refs = [ref(batch * MAX_TASKS + number) for number in range(MAX_TASKS)]
        tasks.watch(refs)
        answer(tasks, float(batch * 10))
    assert len(tasks._seen) <= MAX_SEEN
    tasks.watch(())
    assert (tasks.watched, tasks.stopped_count, tasks.failures) == (0, 0, [])
    assert (tasks._pauses, tasks._cluster_asked_at, tasks._answering) == ({}, {}, set())


def test_a_task_is_forgotten_with_its_suspect() -> None:
    """A word about an instance that is no suspect any more must not wait for its next silence."""
    tasks = watching(ref(1))
    answer(tasks, 0.0, "STOPPED")
    assert tasks.stopped(ref(1)) is not None
    tasks.watch(())
    tasks.watch([ref(1)])
    assert tasks.stopped(ref(1)) is None
    # An answer that comes after the suspect has gone says nothing of anybody.
    tasks.watch(())
    tasks.answered(PROD, [ref(1)], {ref(1).task_id: ("STOPPED", "")}, 1.0)
    assert (tasks.stopped(ref(1)), tasks.stopped_count) == (None, 0)


@given(
    st.lists(st.integers(0, 350), unique=True, max_size=350),
    st.lists(st.sampled_from(["RUNNING", "STOPPED", "MISSING", "error"]), max_size=40),
)
def test_each_task_is_asked_for_in_its_turn(numbers: list[int], answers: list[str]) -> None:
    """No request has more than a hundred tasks, or tasks of two clusters, or one within the interval."""
    clusters = [Cluster(f"c-{number}", REGION) for number in range(3)]
    refs = [ref(number, clusters[number % 3]) for number in numbers]
    tasks = watching(*refs)
    last: dict[TaskRef, float] = {}
    said: set[TaskRef] = set()
    for second, status in enumerate(answers):
        now = float(second)
        request = tasks.next_request(now)
        if request is None:
            continue
        cluster, asked = request
        assert 0 < len(asked) <= MAX_TASKS
        assert {each.cluster for each in asked} == {cluster}
        assert all(now - last.get(each, -100.0) >= REPEAT_INTERVAL for each in asked)
        assert said.isdisjoint(asked)
        if status == "error":
            tasks.failed(cluster, "error", now)
            continue
        last |= dict.fromkeys(asked, now)
        tasks.answered(cluster, asked, {each.task_id: (status, "") for each in asked}, now)
        said |= set(asked) if status == "STOPPED" else set()
    assert said <= {each for each in refs if tasks.stopped(each)}
