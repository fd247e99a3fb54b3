"""What would be broken in the documentation site is named, and a version is published beside the others."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SITE = Path(__file__).parents[2] / "docs" / "site"


@pytest.fixture(scope="module")
def links() -> Iterator[ModuleType]:
    """The module that checks built pages, under the name by which the script beside it imports it."""
    yield from _loaded("links")


@pytest.fixture(scope="module")
def build(links: ModuleType) -> Iterator[ModuleType]:
    """The script that builds the site."""
    assert links.__name__ == "links"
    yield from _loaded("build")


def _loaded(name: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(name, SITE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A site of two pages, an image and a stylesheet, in which every reference is right."""
    folder = tmp_path / "0.1"
    (folder / "docs").mkdir(parents=True)
    (folder / "a picture.svg").write_text("<svg/>")
    (folder / "site.css").write_text('body { background: url("a picture.svg") }\nb { content: url(data:x) }')
    (folder / "docs" / "index.html").write_text(
        '<link rel="stylesheet" href="../site.css?v=1"><link rel="canonical" href="https://example.com/docs">'
        '<h1 id="top-of-it"></h1><img src="../a%20picture.svg"><a href="#top-of-it"></a><a href="#"></a>'
        '<a href="other.html#part-%C3%A9"></a><a href="https://www.envoyproxy.io"></a><a href="mailto:x@y.example"></a>'
    )
    (folder / "docs" / "other.html").write_text('<section id="part-é"></section><a href="index.html"></a>')
    return folder


def test_a_site_without_faults_has_none(links: ModuleType, pages: Path) -> None:
    """Links to pages, headings, files and other sites are right; so are queries, escapes and embedded data."""
    assert links.faults(pages) == []


@pytest.mark.parametrize(
    ("element", "fault"),
    [
        ('<a href="none.html">', "no such file"),
        ('<a href="../docs">', "no such file"),
        ('<a href="other.html#none">', "no such heading"),
        ('<a href="#none">', "no such heading"),
        ('<img src="none.png">', "no such file"),
        ('<a href="../../0.2/docs/index.html">', "leads out of the site"),
        ('<a href="/docs/index.html">', "leads out of the site"),
        ('<script src="https://cdn.example.com/x.js">', "would be loaded from elsewhere"),
        ('<img src="//example.com/x.png">', "would be loaded from elsewhere"),
        ('<link rel="preconnect" href="https://fonts.example.com">', "would be loaded from elsewhere"),
    ],
)
def test_each_broken_reference_is_named(links: ModuleType, pages: Path, element: str, fault: str) -> None:
    """The line has the page, the reference, and what is wrong with it."""
    with (pages / "docs" / "index.html").open("a") as page:
        page.write(element)
    (line,) = links.faults(pages)
    assert line.startswith("docs/index.html: ")
    assert fault in line


@pytest.mark.parametrize("rule", ['@import "https://example.com/x.css";', "a { background: url(//example.com/x) }"])
def test_stylesheets_load_nothing_from_elsewhere(links: ModuleType, pages: Path, rule: str) -> None:
    """A font or stylesheet of another host is named, also where a stylesheet asks for it."""
    with (pages / "site.css").open("a") as sheet:
        sheet.write(rule)
    (line,) = links.faults(pages)
    assert line.startswith("site.css: ")


def test_the_newest_version_is_latest(build: ModuleType, pages: Path) -> None:
    """Versions are compared as numbers; one that is built again takes `latest` from no newer one."""
    site = pages.parent
    build.publish(site, "0.1")
    assert (site / "latest" / "docs" / "other.html").is_file()
    for newer in ("0.9", "0.10"):
        (site / newer).mkdir()
        (site / newer / "newer").touch()
        build.publish(site, newer)
    build.publish(site, "0.1")
    assert (site / "latest" / "newer").is_file()
    assert not (site / "latest" / "docs").exists()
    assert (site / "versions.js").read_text() == (
        'window.headcountVersions = ["0.10", "0.9", "0.1"];\nwindow.headcountLatest = "0.10";\n'
    )


def test_the_documented_version_is_that_of_the_project(build: ModuleType) -> None:
    """A patch release documents itself in the directory of its minor version."""
    assert build.newest_first([build.documented_version(), "latest", "_static"]) == [build.documented_version()]
