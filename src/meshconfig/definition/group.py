"""groups/NAME.yaml: dependencies that many services share."""

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.strict_block import StrictBlock


class Group(StrictBlock, frozen=True, kw_only=True):
    """groups/NAME.yaml: dependencies that many services share.

    Attributes:
        group: its name, which is the file's.
        dependencies: what the apps of its services call; other groups too.
    """

    group: str
    dependencies: tuple[Dependency, ...] = ()
