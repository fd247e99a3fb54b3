"""nginx, answering each poll with a file: the same bytes, without reading what was asked. The limit to be near to."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

from harness.process import eventually, free_port, running

from benchmarks.peers.side import Side, end_of, listens

NAME = "nginx"
MISSING = "nginx is not installed; Debian and Ubuntu have it: apt install nginx-light"

# Everything that nginx's own documentation counts among the means to be faster, and room for a body without a file.
_CONFIGURATION = Template("""\
daemon off;
$user
worker_processes $workers;
error_log stderr error;
pid $directory/nginx.pid;
events { worker_connections 4096; multi_accept on; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_body_buffer_size 128k;
  client_body_temp_path $directory/bodies;
  open_file_cache max=100;
  default_type application/json;
  server {
    listen 127.0.0.1:$port reuseport backlog=4096;
    root $directory/answers;
    # A file is no answer to a POST, unless one says that it is.
    error_page 405 =200 $$uri;
    location = /unchanged { return 304; }
  }
}
""")


def find() -> str | None:
    """Return the path of nginx; Debian keeps it where only root looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def version(program: str) -> str:
    """Return its version."""
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/(\S+)", told)
    return found[1] if found else told.strip()


@contextlib.contextmanager
def nginx(program: str, directory: Path, answers: Mapping[str, bytes], workers: int) -> Iterator[Side]:
    """Run nginx with a file for each service."""
    home = directory / f"nginx-{workers}"
    (home / "answers").mkdir(parents=True)
    for service, answer in answers.items():
        (home / "answers" / service).write_bytes(answer)
    port = free_port()
    configuration = home / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(_CONFIGURATION.substitute(directory=home, port=port, workers=workers, user=user))
    log = home / "log"
    with running([program, "-p", str(home), "-e", "stderr", "-c", str(configuration)], log=log) as process:
        eventually(lambda: listens(port), said=lambda: end_of(log))
        yield Side(NAME, port, [process.pid], "/{}".format, lambda _service: "/unchanged")
