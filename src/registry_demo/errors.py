"""Errors that end the demo before its last act."""

from registry_demo.process import Process


class NotInstalledError(Exception):
    """A program that the demo needs is missing; the message says how to install it."""


class BrokenError(Exception):
    """A process ended or did not answer in time; the message says which, its log says why."""

    def __init__(self, message: str, process: Process) -> None:
        super().__init__(message)
        self.process = process
