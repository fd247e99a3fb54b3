"""Real-time priority for a server and its load: so simulated clients do not take the processor that they wait for.

In production five hundred Envoys run on machines of their own. Here they share two cores with the registry, and what a
poll then waits for is the scheduler.
"""

import os
from pathlib import Path

_PRIORITY = 10
"""Above every process of normal priority, and below the kernel's own."""


def prefer(pid: int) -> bool:
    """Let all threads of a process run before those of normal priority; return whether this user may do that."""
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except PermissionError:
        return False
    return True


def prefer_this_process() -> None:
    """Let this process run before those of normal priority, if this user may do that."""
    prefer(os.getpid())
