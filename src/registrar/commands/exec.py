"""``registrar exec -- CMD``: as ``registrar run``, with the app as a child process."""

from registrar.commands.run import add_arguments, run

__all__ = ["add_arguments", "run"]
