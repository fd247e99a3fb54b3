"""``registrar exec -- CMD``: the same, with the app as a child that starts and ends with it."""

from registrar.commands.run import add_arguments, run

__all__ = ["add_arguments", "run"]
