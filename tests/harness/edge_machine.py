"""A machine with an app, a registrar whose edge serves the Envoy beside it, and a disk that outlives both."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from harness.envoy import Envoy, envoy
from harness.gate import listens
from harness.process import eventually, free_port
from harness.registrar import Registrar, registrar


class EdgeMachine:
    """A machine.

    Attributes:
        state: the registrar's state directory.
        edge: the port of the edge.
        listener: the port of Envoy's listener.
    """

    def __init__(self, directory: Path, name: str = "machine") -> None:
        self.directory = directory / name
        self.directory.mkdir()
        self.state = self.directory / "state"
        self.edge = free_port()
        self.listener = free_port()
        self._app = free_port()

    @contextlib.contextmanager
    def registrar(self, url: str, **settings: str) -> Iterator[Registrar]:
        """Run its registrar, whose own app is of no importance unless it is named, until the edge listens."""
        values = {
            "service": "beside",
            "endpoint": f"127.0.0.1:{self._app}",
            "edge_listen": f"127.0.0.1:{self.edge}",
            "state_directory": str(self.state),
            "admin_listen": f"unix:{self.directory}/admin.sock",
        }
        values |= settings
        service, endpoint = values.pop("service"), values.pop("endpoint")
        with registrar(self.directory, url, service, endpoint, env=None, within=(), **values) as started:
            eventually(lambda: listens(self.edge), within=20, said=started.log.read_text)
            yield started

    @contextlib.contextmanager
    def envoy(
        self, registries: list[int], *services: str, request_timeout: str = "3s", wait: bool = True
    ) -> Iterator[Envoy]:
        """Run its Envoy, which listens for requests to the first of these services."""
        with envoy(
            self.directory,
            registries,
            services,
            edge=self.edge,
            request_timeout=request_timeout,
            listener=self.listener,
            wait=wait,
        ) as started:
            yield started

    def holds(self, service: str) -> bool:
        """Tell whether a service's assignment is on the disk."""
        return (self.state / "edge" / service).exists()
