"""What ends the demo before its story does."""

from registry_demo.process import Process


class NotInstalledError(Exception):
    """Something that the demo needs is missing; the message says how to mend it."""


class BrokenError(Exception):
    """A process ended or did not answer in time; the message says which, its log says why."""

    def __init__(self, message: str, process: Process) -> None:
        super().__init__(message)
        self.process = process
