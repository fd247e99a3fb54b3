"""What an installed Headcount holds and needs, and what the lock files promise."""

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from registry.store.migration import migrations_path

ROOT = Path(__file__).parents[2]
# The second one comes on top of the first, where the benchmarks run.
# The last one counts where two pin the same package: the generator's are apart from ours.
LOCKS = (
    "tests/openapi/generator.lock",
    "docs/site/requirements.lock",
    "benchmarks/requirements.lock",
    "requirements.lock",
)
LOCK = "".join((ROOT / name).read_text() for name in LOCKS)
IMAGE_LOCKS = sorted(ROOT.glob("deploy/images/*.lock"))
PACKAGES = ("registry", "registrar", "registryctl", "registry_demo", "meshconfig", "wire")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as the Dockerfile does."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    _output(*command, folder=ROOT)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment of its own and return that environment's bin folder."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps"]
    _output(*pip, wheel)
    # The dependencies are borrowed from here. Files named .pth in a borrowed folder are not read, so the
    # editable install, which is one, stays out of sight.
    site = Path(_output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    borrowed = Path(str(distribution("packaging").locate_file("")))
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    return python.parent


def _output(*command: Path | str, folder: Path = Path("/")) -> str:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_installed_wheel_finds_the_migrations_inside_the_package(installed: Path) -> None:
    """A wheel has no repository around it, so its migrations lie in registry/migrations."""
    code = "from registry.store.migration import migrations_path; print(migrations_path())"
    found = Path(_output(installed / "python", "-c", code))
    assert found.is_relative_to(installed.parent)
    assert found.parts[-2:] == ("registry", "migrations")
    assert (found / "env.py").is_file()
    assert {path.name for path in (found / "versions").glob("*.py")} == {
        path.name for path in (ROOT / "migrations" / "versions").glob("*.py")
    }


def test_an_editable_install_finds_the_migrations_of_the_checkout() -> None:
    """A developer's revisions are used where they are written, without a copy."""
    assert migrations_path() == ROOT / "migrations"


@pytest.mark.parametrize(("command", "verb"), [("registry", "serve"), ("registrar", "run"), ("registryctl", "check")])
def test_an_installed_wheel_has_working_commands(installed: Path, command: str, verb: str) -> None:
    """The console scripts start without the repository and know their verbs."""
    assert verb in _output(installed / command, "--help")


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    """Static files, templates and py.typed travel; tests, caches and the rest of the repository do not."""
    sources = {
        path.relative_to(folder.parent).as_posix()
        for folder in (ROOT / "src" / package for package in PACKAGES)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    migrations = {
        f"registry/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "migrations").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == sources | migrations
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert any(name.startswith("registry/console/static/") for name in held)


def test_the_wheel_holds_the_licences(wheel: Path) -> None:
    """Ours travels with the program, and so do those of Swagger UI, htmx, uPlot and dagre, which we ship."""
    with zipfile.ZipFile(wheel) as archive:
        held = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
    assert {name.partition("/licenses/")[2] for name in held} == set(_project()["project"]["license-files"])


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist of this checkout."""
    target = tmp_path_factory.mktemp("sdist")
    _output(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(target), folder=ROOT)
    with tarfile.open(next(target.glob("*.tar.gz"))) as archive:
        archive.extractall(target, filter="data")
    return next(path for path in target.iterdir() if path.is_dir())


def test_the_sdist_has_every_file_of_the_repository(sdist: Path) -> None:
    """A packager and an auditor need tests, migrations, deploy/, locks and documents as well."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    held = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    assert tracked - held == set()


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """Byte for byte, so what pip builds from it is what is released."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    _output(*command, folder=sdist)
    assert next(tmp_path.glob("*.whl")).read_bytes() == wheel.read_bytes()


@pytest.fixture
def bare(wheel: Path, tmp_path: Path) -> Path:
    """A fresh environment with `pip install headcount` in it and no extra; return its bin folder."""
    home = tmp_path / "bare"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    _output(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", wheel)
    _install(_needed("headcount"), python)
    return python.parent


def _install(names: set[str], python: Path) -> None:
    """Put packages into an environment, as far as they are not there."""
    site = Path(_output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    for name in names:
        _borrow(name, site)


def _lacking(*command: Path | str) -> str:
    """Run a command that has to say in one line what it lacks, with exit status 2; return the line."""
    done = subprocess.run(command, cwd="/", check=False, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr


def test_each_command_names_the_extra_that_it_lacks(bare: Path, tmp_path: Path) -> None:
    """Without extras, with that of another command, and for each thing that is only needed at times."""
    assert "run" in _output(bare / "registrar", "--help")
    for words in ([], ["--help"], ["serve"], ["migrate"]):
        assert "pip install 'headcount[server]'" in _lacking(bare / "registry", *words)
    assert "pip install 'headcount[demo]'" in _lacking(bare / "registry", "demo")
    for words in ([], ["--help"], ["services"], ["check"]):
        assert "pip install 'headcount[ctl]'" in _lacking(bare / "registryctl", *words)
    settings = tmp_path / "registrar.yaml"
    settings.write_text("services: []")
    assert "headcount[yaml]" in _lacking(bare / "registrar", "validate", "--config", settings)
    _install(_needed("headcount[ctl]"), bare / "python")
    assert "check" in _output(bare / "registryctl", "--help")
    assert "pip install 'headcount[server]'" in _lacking(bare / "registry", "serve")
    _install(_needed("headcount[server]"), bare / "python")
    assert "serve" in _output(bare / "registry", "--help")
    assert "headcount[embedded]" in _lacking(bare / "registry", "serve")


def test_a_module_of_ours_that_is_missing_is_a_defect(bare: Path) -> None:
    """It keeps its traceback: no extra would mend it."""
    _install(_needed("headcount[ctl]"), bare / "python")
    code = (
        "import sys; sys.modules['registryctl.cli'] = None\n"
        "from registry.entry_points import registryctl\n"
        "registryctl()"
    )
    done = subprocess.run([bare / "python", "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (1, True)


def test_the_registrar_runs_on_the_base_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    """The sidecar's command line needs no package of any extra."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    for name in _needed("headcount"):
        _borrow(name, tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['registrar', '--help']\n"
        "from registrar.cli import main\n"
        "main()"
    )
    # Isolated and without site-packages: the standard library and the borrowed folder are all there is.
    assert "usage: registrar" in _output(sys.executable, "-I", "-S", "-c", code)


def _needed(name: str) -> set[str]:
    """Return the distributions that one without extras pulls in, at any depth."""
    found: set[str] = set()
    waiting = [Requirement(name)]
    while waiting:
        parent = waiting.pop()
        for line in requires(parent.name) or []:
            child = Requirement(line)
            extras = parent.extras or {""}
            wanted = child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras)
            if wanted and child.name not in found:
                found.add(child.name)
                waiting.append(child)
    return found


def _borrow(name: str, folder: Path) -> None:
    installed = distribution(name)
    for top in {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(Path(str(installed.locate_file(top))))


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _direct_requirements() -> list[Requirement]:
    """Return what pyproject.toml asks for anywhere, without the references to itself."""
    document = _project()
    lines = [
        *document["build-system"]["requires"],
        *document["project"]["dependencies"],
        *(line for extra in document["project"]["optional-dependencies"].values() for line in extra),
        *(line for group in document["dependency-groups"].values() for line in group),
    ]
    return [item for item in map(Requirement, lines) if item.name != document["project"]["name"]]


def test_the_lock_meets_pyproject() -> None:
    """Whoever changes a requirement refreshes the lock (`make lock`): each direct requirement has its pin."""
    pins = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", LOCK, re.MULTILINE))
    missing = [
        str(item)
        for item in _direct_requirements()
        if not item.specifier.contains(pins.get(canonicalize_name(item.name), "0"), prereleases=True)
    ]
    assert missing == []


def test_the_lock_pins_by_hash_and_names_no_place() -> None:
    """Any index may serve the files, as their hashes decide; none is named."""
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert [entry.split(" ", 1)[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"://|^-.*|@ ", LOCK, re.MULTILINE) == []


@pytest.mark.parametrize("lock", IMAGE_LOCKS, ids=lambda lock: lock.stem)
def test_an_image_holds_what_the_tests_ran_with(lock: Path) -> None:
    """A package of an image has the version and the hashes that it has in the lock of the tests."""
    assert [path.stem for path in IMAGE_LOCKS] == ["build", "registrar", "registry"]
    tested, image = _hashes_of_pins((ROOT / "requirements.lock").read_text()), _hashes_of_pins(lock.read_text())
    assert image
    assert [pin for pin, hashes in image.items() if tested.get(pin) != hashes] == []


def _hashes_of_pins(text: str) -> dict[str, set[str]]:
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    return {re.split(r"[ ;]", entry, maxsplit=1)[0]: set(re.findall(r"--hash=(\S+)", entry)) for entry in entries}


@pytest.mark.parametrize(
    ("image", "extras"), [("registry", {"server", "aws", "oidc", "grpc"}), ("registrar", {"yaml"})]
)
def test_an_image_holds_the_extras_it_needs_and_no_more(image: str, extras: set[str]) -> None:
    """Each requirement of the base and of the image's extras is in its lock; the sidecar's has three packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    pins = {pin.partition("==")[0] for pin in _hashes_of_pins((ROOT / f"deploy/images/{image}.lock").read_text())}
    assert {canonicalize_name(Requirement(line).name) for line in lines} <= pins
    if image == "registrar":
        assert pins == {"h11", "msgspec", "pyyaml"}


def test_every_direct_dependency_is_justified() -> None:
    """docs/dependencies.md has a row for each package that pyproject.toml names."""
    page = (ROOT / "docs" / "dependencies.md").read_text()
    named = {canonicalize_name(name) for name in re.findall(r"^\| `([^`\[]+)", page, re.MULTILINE)}
    assert named == {canonicalize_name(item.name) for item in _direct_requirements()}


def test_make_installs_without_a_line_a_package() -> None:
    """What is being done is said in a line each; pip and uv print only what goes wrong."""
    recipes = re.findall(r"^\t@\$\(PIP\) .*$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(recipes) == 4
    assert [line for line in recipes if "--quiet" not in line] == []
