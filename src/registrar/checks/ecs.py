"""The ecs check: what the ECS agent knows of a container of this task."""

import os
from typing import Annotated, ClassVar

from msgspec import Meta

from registrar.checks.check import Check, CheckTarget, Options
from registrar.checks.result import Outcome, Result
from registrar.errors import MetadataUnavailable
from registrar.identity.metadata import VARIABLE, Container, Metadata

_RUNNING = "RUNNING"
_STATUSES = {"HEALTHY": Outcome.PASSED, "UNHEALTHY": Outcome.FAILED}


class EcsOptions(Options, frozen=True, tag="ecs"):
    """Ask for a container's state and health."""

    # The agent limits the rate of a whole machine: that it does not answer says nothing about the app.
    unanswered: ClassVar[Outcome] = Outcome.UNKNOWN

    container: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,
            description="Name of the container in the task definition. It passes while it runs and its own "
            "healthCheck, if it has one, says HEALTHY; one that the task no longer lists fails. After a restart in "
            "place the endpoint starts again, unpublished.",
        ),
    ]

    def check(self, target: CheckTarget) -> Check:  # noqa: ARG002  # the metadata is asked
        """Return the check of this type; the target is the container, wherever it listens."""
        return EcsCheck(self, Metadata.of(os.environ))


class EcsCheck:
    """Reads the task's metadata; without an answer there is no evidence for anything."""

    def __init__(self, options: EcsOptions, metadata: Metadata | None) -> None:
        self._name = options.container
        self._metadata = metadata

    async def probe(self) -> Result:
        """Judge the container."""
        if self._metadata is None:
            raise ValueError(f"not in an ECS task: {VARIABLE} is not set")
        try:
            task = await self._metadata.task()
        except MetadataUnavailable as error:
            return Result(Outcome.UNKNOWN, str(error))
        container = task.container(self._name)
        if container is None and not task.whole:
            return Result(
                Outcome.UNKNOWN,
                f"the agent's list of containers has some without a name, or is none; {self._name!r} may be among them",
            )
        if container is None:
            names = ", ".join(one.name for one in task.containers) or "none"
            return Result(Outcome.FAILED, f"no container {self._name!r} in the task; there are {names}")
        return _judge(container)


def _judge(container: Container) -> Result:
    life = _life(container)
    if not container.known_status:
        return Result(Outcome.UNKNOWN, "the agent does not tell the container's KnownStatus", life)
    if container.known_status != _RUNNING:
        exited = f" (exit status {container.exit_code})" if container.exit_code is not None else ""
        return Result(Outcome.FAILED, f"container is {container.known_status}{exited}", life)
    if container.health is None:
        return Result(Outcome.PASSED, "container is RUNNING; it has no healthCheck", life)
    status, output = container.health.status, container.health.output
    if status not in _STATUSES:
        return Result(Outcome.UNKNOWN, "container is RUNNING; its healthCheck has not said anything yet", life)
    return Result(_STATUSES[status], f"container is {status} {output}", life)


def _life(container: Container) -> str:
    """Return what changes with each start, or nothing before the first."""
    if not (container.started_at and container.docker_id):
        return ""
    docker_id, started_at, restarts = container.life
    return f"{docker_id[:64]} started at {started_at}, restart {restarts}"
