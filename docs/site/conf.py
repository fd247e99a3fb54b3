"""The configuration of the documentation site, for Sphinx; `make site` builds it.

The source directory is the repository, so that links are what they are on a code host: a link to a page leads to that
page of the site, and a link to any other file of the repository downloads it. A link to a directory is its text alone.
"""

import tomllib
from pathlib import Path

from docutils.nodes import document
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

_ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]

# The one that the console has.
_ICON = "../../src/registry/console/static/console/icon.svg"

project = "Headcount"
project_copyright = "the Headcount authors, Apache-2.0"
release = _PROJECT["version"]
version = ".".join(release.split(".")[:2])
root_doc = "docs/index"
extensions = ["myst_parser"]

include_patterns = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/*.md", "deploy/**.md", "docs/**.md"]
exclude_patterns = [".*", "build", "dist"]

# Headings have the anchors that code hosts give them, and a reference to none is a warning, which fails the build.
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]
nitpicky = True
highlight_language = "none"
# A block that its language's lexer does not take in whole, such as SQL with a command of psql, is shown all the same.
suppress_warnings = ["misc.highlighting_failure"]
# `make sitelinks` asks for the targets outside of the site; these are examples that nobody serves.
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost|[a-z.]*\.?(internal|example\.com))(:\d+)?(/.*)?"]
linkcheck_timeout = 20

html_title = f"Headcount {version}"
html_theme = "pydata_sphinx_theme"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["versions.js"]
html_favicon = _ICON
templates_path = ["templates"]
html_sidebars = {"**": ["pages.html"]}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "Headcount", "image_light": _ICON, "image_dark": _ICON},
    "navbar_center": ["versions"],
    "navbar_end": ["theme-switcher"],
    "navigation_depth": 1,
    "search_as_you_type": True,
    "search_bar_text": "Search",
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
}


def _unlink_directories(app: Sphinx, page: document) -> None:
    """Leave the text of a link to a directory, which a code host lists and a site does not."""
    folder = (_ROOT / app.env.docname).parent
    for link in [*page.findall(pending_xref)]:
        if link["reftype"] == "myst" and (folder / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    """Take part in the build."""
    app.connect("doctree-read", _unlink_directories)
