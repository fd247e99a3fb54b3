"""nginx in front of registries, with the configuration of deploy/ or one of the test's own."""

import contextlib
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.process import eventually, running

DEPLOYED = Path(__file__).parents[2] / "deploy" / "nginx" / "headcount.conf"

_MAIN = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/headcount.conf;
}}
"""


def binary() -> str | None:
    """Return nginx, if this machine has it."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def deployed(ports: Sequence[int], port: int) -> str:
    """Return the configuration of deploy/ as it stands, but for the addresses."""
    named = iter(ports)
    text = re.sub(r"server 10\.0\.0\.\d:8080", lambda _: f"server 127.0.0.1:{next(named)}", DEPLOYED.read_text())
    assert not [*named], "it names fewer registries than there are"
    return text.replace("listen 8080;", f"listen 127.0.0.1:{port};")


@contextlib.contextmanager
def nginx(configuration: str, directory: Path) -> Iterator[None]:
    """Run nginx with a configuration of its `http` block until the end of the block."""
    program = binary()
    assert program is not None
    directory.mkdir()
    (directory / "headcount.conf").write_text(configuration)
    main = directory / "nginx.conf"
    main.write_text(_MAIN.format(directory=directory))
    log = directory / "output.log"
    (port,) = re.findall(r"listen 127\.0\.0\.1:(\d+);", configuration)
    with running([program, "-e", str(log), "-p", str(directory), "-c", str(main)], log=log) as process:
        eventually(lambda: process.poll() is not None or _listens(int(port)), within=20, said=log.read_text)
        assert process.poll() is None, log.read_text()
        yield


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
