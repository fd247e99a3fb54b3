"""The types of checks that the settings may name; a new type needs a module and an entry here.

An option whose own type the settings have not had yet needs an entry in ``registrar.config.conversion`` and
``registrar.config.schema`` too.
"""

from typing import get_args

from registrar.checks.check import Options
from registrar.checks.ecs import EcsOptions
from registrar.checks.exec import ExecOptions
from registrar.checks.file import FileOptions
from registrar.checks.grpc import GrpcOptions
from registrar.checks.http import HttpOptions
from registrar.checks.noop import NoopOptions
from registrar.checks.push import PushOptions
from registrar.checks.tcp import TcpOptions

CheckOptions = (
    HttpOptions | TcpOptions | GrpcOptions | ExecOptions | EcsOptions | PushOptions | FileOptions | NoopOptions
)

KINDS: dict[str, type[Options]] = {str(kind.__struct_config__.tag): kind for kind in get_args(CheckOptions)}
