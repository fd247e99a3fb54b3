"""One run of a verb: the client and the screen it works with, each made when it is first needed."""

from functools import cached_property
from typing import TYPE_CHECKING

from registryctl.settings import Settings

if TYPE_CHECKING:
    from registryctl.client import Client
    from registryctl.output import Screen


class Session:
    """What a verb is given.

    Attributes:
        settings: where to ask.
        output: table or json; a verb may know more.
    """

    def __init__(self, settings: Settings, output: str) -> None:
        self.settings = settings
        self.output = output

    @property
    def json(self) -> bool:
        """Whether a script asks."""
        return self.output == "json"

    @cached_property
    def client(self) -> "Client":
        """The registry."""
        from registryctl.client import Client

        return Client(self.settings)

    @cached_property
    def screen(self) -> "Screen":
        """Standard output."""
        from registryctl.output import Screen

        return Screen()

    def close(self) -> None:
        """Close what was opened."""
        if "client" in self.__dict__:
            self.client.close()
