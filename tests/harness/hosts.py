"""Names that a test makes up for one process: a hosts file of its own, and no DNS at all."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_UNSHARE = ("unshare", "--mount", "--propagation", "private")


class Hosts:
    """A hosts file that only the processes started with ``within`` see.

    Attributes:
        within: the command that executes the one behind it where these names hold.
    """

    def __init__(self, directory: Path) -> None:
        done = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a mount namespace needs rights that are missing here: {done.stderr.strip()}")
        self._hosts = directory / "hosts"
        order = directory / "nsswitch.conf"
        order.write_text("hosts: files\n")
        self.name()
        mounts = f'mount --bind {self._hosts} /etc/hosts && mount --bind {order} /etc/nsswitch.conf && exec "$@"'
        self.within: Sequence[str] = (*_UNSHARE, "sh", "-c", mounts, "sh")

    def name(self, **addresses: str) -> None:
        """Let these names, with underscores for dots, have these addresses, and no other name any."""
        lines = [f"{address} {name.replace('_', '.')}\n" for name, address in addresses.items()]
        # In place: the mount holds the file, not its path.
        self._hosts.write_text("".join(["127.0.0.1 localhost\n", *lines]))
