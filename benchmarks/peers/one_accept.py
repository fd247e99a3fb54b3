"""The registry itself, but that its acceptor takes one connection a turn of the loop, as libuv's accept loop does.

Run as ``python -m benchmarks.peers.one_accept serve``, with the settings of ``registry serve``. The worker processes
import this module again, so that they accept in the same way.
"""

import sys

from registry.cli import main
from registry.http import acceptor

NAME = "registry, one accept a turn"
PROGRAM = (sys.executable, "-m", "benchmarks.peers.one_accept")

if __name__ in {"__main__", "__mp_main__"}:
    acceptor.MAX_PLAIN_PER_TURN = 1

if __name__ == "__main__":
    main()
