"""The API's own page: Swagger UI, from our own files, with the security headers of the console."""

from pathlib import Path

from fastapi.responses import HTMLResponse

from registry.console.security_headers import HEADERS

_PAGE = (Path(__file__).parent / "templates" / "docs.html").read_text(encoding="utf-8")
# Swagger UI's style sheet draws its icons from data: URLs, which run nothing.
_HEADERS = HEADERS | {
    "content-security-policy": HEADERS["content-security-policy"].replace("img-src 'self'", "img-src 'self' data:")
}


async def get_docs() -> HTMLResponse:
    """Show the API in Swagger UI, without a CDN: an air-gapped network has none."""
    return HTMLResponse(_PAGE, headers=_HEADERS)
