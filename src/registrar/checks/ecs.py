"""The ecs check: the state and health of a container, from the ECS task metadata."""

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
    """The options of the ecs check."""

    # The agent throttles all tasks of a machine together: a missing response says nothing about the app.
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

    def check(self, target: CheckTarget) -> Check:  # noqa: ARG002  # the metadata has the container
        """Return the check with these options; it does not use the address of the target."""
        return EcsCheck(self, Metadata.of(os.environ))


class EcsCheck:
    """Reads the task metadata; without a response the result is UNKNOWN."""

    def __init__(self, options: EcsOptions, metadata: Metadata | None) -> None:
        self._name = options.container
        self._metadata = metadata

    async def probe(self) -> Result:
        """Read the task metadata once and return the result for the container."""
        if self._metadata is None:
            raise ValueError(f"not in an ECS task: {VARIABLE} is not set; remove the ecs check here")
        try:
            task = await self._metadata.task()
        except MetadataUnavailable as error:
            return Result(Outcome.UNKNOWN, str(error))
        container = task.container(self._name)
        if container is None and not task.whole:
            return Result(
                Outcome.UNKNOWN,
                f"the agent's list of containers is incomplete; {self._name!r} may be missing from it",
            )
        if container is None:
            names = ", ".join(listed.name for listed in task.containers) or "none"
            return Result(Outcome.FAILED, f"no container {self._name!r} in the task; its containers: {names}")
        return _evaluate(container)


def _evaluate(container: Container) -> Result:
    app_start = _app_start(container)
    if not container.known_status:
        return Result(Outcome.UNKNOWN, "the container has no KnownStatus in the task metadata", app_start)
    if container.known_status != _RUNNING:
        exited = f" (exit status {container.exit_code})" if container.exit_code is not None else ""
        return Result(Outcome.FAILED, f"container is {container.known_status}{exited}", app_start)
    if container.health is None:
        return Result(Outcome.PASSED, "container is RUNNING; it has no healthCheck", app_start)
    status, output = container.health.status, container.health.output
    if status not in _STATUSES:
        return Result(Outcome.UNKNOWN, "container is RUNNING; its healthCheck has no result yet", app_start)
    return Result(_STATUSES[status], f"container is {status} {output}", app_start)


def _app_start(container: Container) -> str:
    """Return a text that changes with each start of the container; empty before the first."""
    if not (container.started_at and container.docker_id):
        return ""
    docker_id, started_at, restarts = container.life
    return f"{docker_id[:64]} started at {started_at}, restart {restarts}"
