"""Terraform for tests: modules without providers, applied in a directory of the test, without network."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_VERSION = (1, 9)
"""Since this version a validation of a variable may look at other variables."""


class Terraform:
    """The program, for one module.

    Args:
        module: the directory of the module.
        work: a directory for its state and data.
    """

    def __init__(self, module: Path, work: Path) -> None:
        self._program = _program()
        self._module = module
        self._state = work / "terraform.tfstate"
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(work),
            "TF_CLI_CONFIG_FILE": os.devnull,
            "TF_DATA_DIR": str(work / "data"),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }

    def outputs(self, **variables: str) -> dict[str, Any]:
        """Apply the module and return its outputs."""
        done = self._apply(variables)
        assert done.returncode == 0, done.stderr
        text = self._run("output", "-json", f"-state={self._state}").stdout
        return {name: output["value"] for name, output in json.loads(text).items()}

    def errors(self, **variables: str) -> str:
        """Apply the module, which has to fail, and return what it says, on one line."""
        done = self._apply(variables)
        assert done.returncode != 0
        return " ".join(done.stderr.replace("│", " ").split())

    def _apply(self, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        init = self._run("init", "-backend=false", "-input=false", "-no-color")
        assert init.returncode == 0, init.stderr
        values = [f"-var={name}={value}" for name, value in variables.items()]
        return self._run("apply", "-auto-approve", "-input=false", "-no-color", f"-state={self._state}", *values)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self._program, f"-chdir={self._module}", *arguments]
        return subprocess.run(command, env=self._environ, capture_output=True, text=True, check=False)


def _program() -> str:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("no terraform here: the modules are only parsed")
    told = subprocess.run(
        [program, "version", "-json"],
        env={"PATH": os.environ["PATH"], "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    version = json.loads(told.stdout)["terraform_version"]
    if tuple(map(int, version.split(".")[:2])) < _VERSION:
        pytest.skip(f"terraform {version} is older than the modules want")
    return program
