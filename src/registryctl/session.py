"""Session of one run of a verb: its client and its screen, each made when it is first needed."""

from functools import cached_property
from typing import TYPE_CHECKING

from registryctl.settings import Settings

if TYPE_CHECKING:
    from registryctl.client import ApiClient
    from registryctl.output import Screen


class Session:
    """Everything that a verb works with.

    Attributes:
        settings: where to ask.
        output: the format to print: table or json; a verb may have more.
    """

    def __init__(self, settings: Settings, output: str) -> None:
        self.settings = settings
        self.output = output

    @property
    def json(self) -> bool:
        """Whether to print for a script."""
        return self.output == "json"

    @cached_property
    def client(self) -> "ApiClient":
        """The client of the registry."""
        from registryctl.client import ApiClient

        return ApiClient(self.settings)

    @property
    def answered(self) -> bool:
        """Whether something has answered a request, be it a registry or not."""
        return "client" in self.__dict__ and self.client.answered

    @cached_property
    def screen(self) -> "Screen":
        """Standard output."""
        from registryctl.output import Screen

        return Screen()

    def close(self) -> None:
        """Close what was opened."""
        if "client" in self.__dict__:
            self.client.close()
