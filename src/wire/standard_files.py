"""Standard input, output and error of a program that was started without some of them."""

import os
import sys

_FILES = ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY))


def open_missing_files() -> None:
    """Open /dev/null in place of standard input, output and error that are closed, as a daemon's may be.

    Otherwise the next file or connection gets their numbers, and what is written to standard error goes there.
    """
    for number, mode in _FILES:
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one; programs that are started have it too.
            os.set_inheritable(os.open(os.devnull, mode), True)
    # As Python begins without them.
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # as long as the program
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
