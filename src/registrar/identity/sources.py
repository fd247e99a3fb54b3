"""All sources, in the order in which they are asked."""

from collections.abc import Mapping

from registrar.identity.aws_api import AwsApi
from registrar.identity.configured import Configured
from registrar.identity.ec2 import Ec2
from registrar.identity.ecs_task import PATIENCE, EcsTask
from registrar.identity.metadata import Metadata
from registrar.identity.metadata_file import VARIABLE, MetadataFile
from registrar.identity.source import Facts, Source
from registrar.identity.vm import Vm


def sources(configured: Facts, environ: Mapping[str, str], patience: float = PATIENCE) -> tuple[Source, ...]:
    """Return the sources of this process.

    Each source finds out without a request whether it applies here: a machine outside of ECS and EC2 waits for nothing,
    and one in EC2 at most for the three seconds of a silent IMDS.

    Args:
        configured: the facts in the settings.
        environ: the process's environment.
        patience: seconds to wait for a container of the task that has not started yet, and for its metadata.
    """
    task = EcsTask(Metadata.of(environ), patience, identifies=not configured.instance_id)
    return (
        Configured(configured),
        task,
        MetadataFile(task, environ.get(VARIABLE, "")),
        Ec2(environ, task),
        AwsApi(task),
        Vm(task=task),
    )
