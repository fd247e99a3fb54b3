"""Tests in several processes, forked after the collection, report as those of one process do."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[1]
SHARED = """
import os, pathlib, pytest

@pytest.fixture(scope="session")
def place():
    ended = pathlib.Path("ended")
    ended.mkdir(exist_ok=True)
    yield os.getpid()
    (ended / str(os.getpid())).touch()
"""


def run(
    folder: Path, *words: str, files: Mapping[str, str], before: Callable[[], object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run these files of tests in ``folder``, in three processes; ``before`` is called in the first of them."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, content in {"conftest": SHARED, **files}.items():
        (folder / f"{name}.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "harness.forked_tests", "--processes", "3"]
    command += [word for plugin in ("asyncio", "hypothesispytest", "schemathesis") for word in ("-p", f"no:{plugin}")]
    env = os.environ | {"PYTHONPATH": str(HARNESS), "PYTEST_ADDOPTS": ""}
    everything = [*command, *words]
    return subprocess.run(
        everything, cwd=folder, env=env, preexec_fn=before, capture_output=True, text=True, timeout=120, check=False
    )


def names(done: subprocess.CompletedProcess[str], outcome: str) -> set[str]:
    """Return the tests that the closing summary names with this outcome."""
    return set(re.findall(rf"^{outcome} (\S+)", done.stdout, re.MULTILINE))


def test_every_outcome_is_reported_as_it_was(tmp_path: Path) -> None:
    """Passes, skips, failures with their reason and output, and errors of fixtures are counted and named."""
    done = run(
        tmp_path,
        "-rA",
        files={
            "test_first": "def test_passes(place): pass\n"
            "def test_fails(place):\n    print('said')\n    assert 1 + 1 == 3",
            "test_second": "import pytest\ndef test_skips(): pytest.skip('why not')",
            "test_third": "import pytest\n@pytest.fixture\ndef broken(): raise OSError('no')\n"
            "def test_errs(broken): pass",
        },
    )
    assert done.returncode == 1, done
    assert names(done, "PASSED") == {"test_first.py::test_passes"}
    assert names(done, "FAILED") == {"test_first.py::test_fails"}
    assert names(done, "ERROR") == {"test_third.py::test_errs"}
    assert "1 failed, 1 passed, 1 skipped, 1 error" in done.stdout
    assert "assert (1 + 1) == 3" in done.stdout
    assert "said" in done.stdout
    assert "why not" in done.stdout
    again = run(tmp_path, "--last-failed", "--collect-only", "-q", files={})
    selected = set(re.findall(r"^\S+::\S+", again.stdout, re.MULTILINE))
    assert selected == {"test_first.py::test_fails", "test_third.py::test_errs"}


def test_a_file_stays_with_one_process_which_ends_its_fixtures(tmp_path: Path) -> None:
    """All tests of a file see one process, several processes share the files, and each ends its fixtures."""
    told = "import os, pathlib, time\ndef test_1(place): tell()\ndef test_2(place): tell()\ndef tell():\n"
    told += "    time.sleep(0.2)\n    with open(__file__ + '.pid', 'a') as told: told.write(f'{os.getpid()} ')\n"
    done = run(tmp_path, files={f"test_{number}": told for number in range(9)})
    assert done.returncode == 0, done
    pids = [path.read_text().split() for path in tmp_path.glob("*.pid")]
    assert len(pids) == 9
    assert all(len(of_file) == 2 and len(set(of_file)) == 1 for of_file in pids)
    used = {of_file[0] for of_file in pids}
    assert 1 < len(used) <= 3
    assert {path.name for path in (tmp_path / "ended").iterdir()} == used


def test_what_a_process_leaves_undone_has_failed(tmp_path: Path) -> None:
    """A process that dies fails the test that it ran and the rest of its file, by name; the other files are run."""
    done = run(
        tmp_path,
        files={
            "test_bad": "import os\ndef test_well(): pass\n"
            "def test_dies(): os.kill(os.getpid(), 9)\ndef test_waits(): pass",
            **{f"test_good_{number}": "import time\ndef test_well(): time.sleep(0.1)" for number in range(9)},
        },
    )
    assert done.returncode == 1, done
    assert names(done, "FAILED") == {"test_bad.py::test_dies", "test_bad.py::test_waits"}
    assert "its process of tests ended with SIGKILL" in done.stdout
    assert "2 failed, 10 passed" in done.stdout


def test_what_the_session_cannot_end_fails_the_run(tmp_path: Path) -> None:
    """An error at the end of a fixture of the session is no success, and its reason is printed."""
    broken = "import pytest\n@pytest.fixture(scope='session')\ndef place():\n    yield 1\n    raise OSError('kept')\n"
    files = {f"test_{number}": "def test_well(place): pass" for number in range(2)}
    done = run(tmp_path, files={"conftest": broken, **files})
    assert done.returncode == 1, done
    assert names(done, "FAILED") == {"the"}
    assert "OSError: kept" in done.stderr + done.stdout


def in_background() -> None:
    """Ignore SIGINT, as what a shell starts with & does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("words", [["-x"], []], ids=["first failure", "interrupt"])
def test_a_run_that_stops_ends_every_process_and_its_fixtures(tmp_path: Path, words: list[str]) -> None:
    """After the first failure with -x, in the background too, and after Ctrl-C, all processes end their fixtures."""
    act = "assert False" if words else "os.kill(os.getppid(), signal.SIGINT)"
    done = run(
        tmp_path,
        *words,
        before=in_background if words else None,
        files={
            "test_a_long": "import time\ndef test_sleeps(place):\n    open('begun', 'w').close()\n    time.sleep(90)",
            "test_b_stops": f"import os, pathlib, signal, time\ndef test_stops(place):\n"
            f"    until = time.monotonic() + 60\n"
            f"    while not pathlib.Path('begun').exists() and time.monotonic() < until: time.sleep(0.01)\n    {act}",
        },
    )
    assert done.returncode == (pytest.ExitCode.TESTS_FAILED if words else pytest.ExitCode.INTERRUPTED), done
    assert len(list((tmp_path / "ended").iterdir())) == 2
    assert "test_a_long" not in names(done, "FAILED")


def test_a_thread_of_an_import_is_refused(tmp_path: Path) -> None:
    """A fork has no thread but its own: a file that starts one when it is imported is not run by halves."""
    started = "import threading, time\nthreading.Thread(target=time.sleep, args=(0.5,)).start()\ndef test_it(): pass"
    done = run(tmp_path, files={"test_first": started, "test_second": "def test_it(): pass"})
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done
    assert "starts a thread when it is imported" in done.stderr + done.stdout
