"""The rule by which responses to browsers are compressed, for pages and documents alike."""

from registry.http.headers import Headers, header

_OWN_SITES = (b"same-origin", b"none")
"""Values of Sec-Fetch-Site for a page that one of our own pages, or the person, has asked for."""


def may_compress(headers: Headers) -> bool:
    """Return whether the response to a request may be compressed: whether no other site has asked for it.

    A site that makes a browser ask, and sees how long responses are on the wire, could guess them word by word where
    they repeat words of their address (BREACH, https://breachattack.com). Browsers say which site asks. One that does
    not say it gets no compressed response with a cookie.
    """
    site = header(headers, b"sec-fetch-site")
    return site in _OWN_SITES if site is not None else header(headers, b"cookie") is None
