"""Print the bill of materials of an image, as CycloneDX: `python sbom.py /registry`, in a stage of its build.

It lists what the image really holds: the interpreter, the Python packages of the environment by their own metadata, and
the Debian packages by dpkg's. The same image gives the same document, byte for byte.
"""

import json
import os
import platform
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

NAMESPACE = uuid.UUID("0e1b0a3c-54a3-5d0c-9a53-6a3ac8a7f0f5")
"""The UUID below which the serial number of a document is derived from its content."""

DPKG = Path("/var/lib/dpkg")

MAX_LICENCE = 60
"""Characters of a licence's name; some packages put the whole text into that field."""


def document(environment: Path, dpkg: Path = DPKG) -> str:
    """Return the bill of materials of an environment and of the system below it."""
    root, *packages = sorted(python_packages(environment), key=lambda component: component.name != "headcount")
    time = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    bom = Bom(
        metadata=BomMetaData(component=root, timestamp=time),
        components=[*packages, _interpreter(), *debian_packages(dpkg)],
    )
    bom.register_dependency(root, packages)
    identity = json.dumps(sorted(str(component.purl) for component in bom.components))
    bom.serial_number = uuid.uuid5(NAMESPACE, f"{root.purl} {identity}")
    return JsonV1Dot6(bom).output_as_string(indent=1)


def python_packages(environment: Path) -> Iterator[Component]:
    """Yield the distributions that are installed in a virtual environment."""
    (site,) = environment.glob("lib/python3.*/site-packages")
    for package in distributions(path=[str(site)]):
        name = re.sub(r"[-_.]+", "-", package.name).lower()
        purl = PackageURL("pypi", name=name, version=package.version)
        kind = ComponentType.APPLICATION if name == "headcount" else ComponentType.LIBRARY
        yield Component(
            type=kind, name=name, version=package.version, bom_ref=str(purl), purl=purl, licenses=_licences(package)
        )


def _interpreter() -> Component:
    """Return the interpreter, which python.org's images compile themselves: dpkg does not know it."""
    purl = PackageURL("generic", name="python", version=platform.python_version())
    return Component(type=ComponentType.PLATFORM, name="python", version=purl.version, bom_ref=str(purl), purl=purl)


def debian_packages(dpkg: Path) -> Iterator[Component]:
    """Yield the packages that dpkg has installed: none where the base is of another distribution."""
    release = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE))
    distribution = f"{release.get('ID', 'debian')}-{release.get('VERSION_ID', 'sid')}"
    for paragraph in (dpkg / "status").read_text().split("\n\n") if (dpkg / "status").exists() else ():
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            qualifiers = {"arch": fields["Architecture"], "distro": distribution}
            purl = PackageURL("deb", "debian", fields["Package"], fields["Version"], qualifiers)
            yield Component(
                type=ComponentType.LIBRARY,
                name=fields["Package"],
                version=fields["Version"],
                bom_ref=str(purl),
                purl=purl,
                description=fields.get("Description"),
            )


def _licences(package: Distribution) -> list[object]:
    """Return the licence that a package states: an SPDX expression, or a name where it is short enough."""
    stated = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    return [LicenseFactory().make_from_string(stated)] if stated and len(stated) <= MAX_LICENCE else []


if __name__ == "__main__":
    print(document(Path(sys.argv[1])))
