"""Find broken links in built pages, and what they would load from the internet."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# A browser follows these links by itself: the others of <link> only say how pages belong together.
_LOADED_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
_OF_STYLESHEET = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")


@dataclass(frozen=True)
class Reference:
    """A URL in a page or a stylesheet."""

    url: str
    loaded: bool
    """Whether a browser fetches it by itself, as it does images, scripts and stylesheets."""


@dataclass
class _Page(HTMLParser):
    """What a page refers to, and the fragments by which others may refer to its parts."""

    references: list[Reference] = field(default_factory=list)
    fragments: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the identifiers and URLs of one element."""
        attributes = {name: value or "" for name, value in attrs}
        if "id" in attributes:
            self.fragments.add(attributes["id"])
        if "src" in attributes:
            self.references.append(Reference(attributes["src"], loaded=True))
        if "href" in attributes:
            loaded = tag == "link" and bool(_LOADED_RELATIONS & set(attributes.get("rel", "").split()))
            self.references.append(Reference(attributes["href"], loaded))


def faults(folder: Path) -> list[str]:
    """Return a line for each reference of a page or stylesheet below this directory that leads nowhere or outside."""
    pages = {path: _read(path) for path in sorted(folder.rglob("*.html"))}
    sources = {path: page.references for path, page in pages.items()}
    sources |= {path: list(_of_stylesheet(path.read_text())) for path in sorted(folder.rglob("*.css"))}
    fragments = {path: page.fragments for path, page in pages.items()}
    return [
        f"{path.relative_to(folder)}: {reference.url}: {fault}"
        for path, references in sources.items()
        for reference in references
        if (fault := _fault(reference, path, folder, fragments))
    ]


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    page.close()
    return page


def _of_stylesheet(text: str) -> Iterator[Reference]:
    for match in _OF_STYLESHEET.finditer(text):
        yield Reference(match[1] or match[2], loaded=True)


def _fault(reference: Reference, page: Path, folder: Path, fragments: Mapping[Path, set[str]]) -> str | None:
    """Return what is wrong with a reference, in words; None when nothing is."""
    url = urlsplit(reference.url)
    if url.scheme == "data":
        return None
    if url.scheme or url.netloc:
        return "would be loaded from elsewhere; keep a copy in docs/site/static" if reference.loaded else None
    target = (page.parent / unquote(url.path)).resolve() if url.path else page
    if not target.is_relative_to(folder.resolve()) and target != page:
        return "leads out of the site"
    if not target.is_file():
        return "no such file"
    if url.fragment and target in fragments and unquote(url.fragment) not in fragments[target]:
        return "no such heading or element on that page"
    return None
