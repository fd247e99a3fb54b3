"""Sessions of browsers: which cookies count for which requests, and what a session may do until it ends."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from registry.auth.access_table import AccessTable
from registry.auth.credential import Credential
from registry.auth.grants import Grant
from registry.auth.origin import carries_cookie
from registry.auth.tokens import BROWSER, CODE, SESSION, TOKEN, NewToken, new_token
from registry.auth.verbs import Verb
from registry.console.login import FIRST_PAGE, own_page
from registry.http.browser_session import PLAIN_NAME, SECURE_NAME, session_of

PEER = "10.0.0.9"
HOST = b"registry.example.com:8080"


def token(name: str = "ann", **fields: Any) -> tuple[NewToken, Credential]:
    """Return a static token that may read, and what is stored of it."""
    new = new_token(TOKEN)
    token = Credential(new.id, new.digest, name, "operator", 1000.0, (Grant((Verb.READ,), ("shop",)),))
    return new, replace(token, **fields)


def session(parent: Credential, **fields: Any) -> tuple[NewToken, Credential]:
    """Return the session of a browser that a token began."""
    new = new_token(BROWSER)
    name = f"token:{parent.name}"
    stored = Credential(new.id, new.digest, name, parent.kind, fields.pop("expires_at", 500.0), parent=parent.id)
    return new, stored


def table_of(*credentials: Credential) -> AccessTable:
    """Return a table that knows credentials."""
    table = AccessTable()
    table.replace([each for each in credentials if not each.is_session], [], ())
    for each in credentials:
        if each.is_session:
            table.add_session(each)
    return table


def test_a_session_is_its_token() -> None:
    """It has the name, kind, grants and ownership of the token, and an end of its own."""
    _, parent = token()
    new, stored = session(parent)
    subject = table_of(parent, stored).subject_of(PEER, None, now=1.0, cookie=new.text.encode())
    assert (subject.name, subject.kind, subject.owner) == ("token:ann", "operator", "token:ann")
    assert subject.grants == parent.grants
    assert (subject.credential, subject.expires_at) == (stored.id, 500.0)


@pytest.mark.parametrize(
    ("changed", "now", "says"),
    [
        ({"revoked_at": 5.0}, 6.0, "the token ann was revoked"),
        ({"expires_at": 100.0}, 100.0, "the token ann has expired"),
        ({"networks": ("10.1.0.0/16",)}, 6.0, f"may not be used from {PEER}"),
        ({}, 500.0, "the session of token:ann has expired; sign in again"),
    ],
)
def test_a_session_ends_with_its_token_and_by_itself(changed: dict[str, Any], now: float, says: str) -> None:
    """By the rules of both, at the moment of the request."""
    _, parent = token(**changed)
    new, stored = session(parent)
    subject = table_of(parent, stored).subject_of(PEER, None, now=now, cookie=new.text.encode())
    assert says in subject.problem
    assert subject.grants == ()


def test_a_session_ends_when_its_token_is_revoked_or_deleted() -> None:
    """The subject that connections and streams keep ends with the next reading."""
    _, parent = token()
    new, stored = session(parent)
    table = table_of(parent, stored)
    subject = table.subject_of(PEER, None, now=1.0, cookie=new.text.encode())
    before = subject.ended
    table.replace([], [], ())
    assert (before, subject.ended) == (False, True)
    assert "deleted" in table.subject_of(PEER, None, now=1.0, cookie=new.text.encode()).problem


def test_the_subject_of_a_session_expires_with_the_earlier_of_both() -> None:
    """A token that ends before its session takes it along."""
    _, parent = token(expires_at=50.0)
    new, stored = session(parent)
    table = table_of(parent, stored)
    subject = table.subject_of(PEER, None, now=1.0, cookie=new.text.encode())
    table.expire(50.0)
    assert subject.ended


@pytest.mark.parametrize("prefix", [TOKEN, SESSION, CODE])
def test_a_cookie_has_a_session_of_a_browser_and_nothing_else(prefix: str) -> None:
    """A token in a cookie is none, and a session of a browser is no bearer token."""
    new = new_token(prefix)
    _, parent = token()
    stored = Credential(new.id, new.digest, "x", "operator", 500.0, parent=parent.id if prefix != TOKEN else "")
    table = table_of(parent, stored)
    assert table.subject_of(PEER, None, now=1.0, cookie=new.text.encode()).problem
    browser, begun = session(parent)
    table.add_session(begun)
    assert table.subject_of(PEER, b"Bearer " + browser.text.encode(), now=1.0).problem
    assert table.unread_credential(b"Bearer " + new_token(BROWSER).text.encode()) is None
    assert table.unread_credential(None, new_token(BROWSER).text.encode()) is not None


def test_a_header_counts_alone() -> None:
    """A bad bearer token does not fall back to the cookie beside it."""
    _, parent = token()
    new, stored = session(parent)
    subject = table_of(parent, stored).subject_of(PEER, b"Bearer no", now=1.0, cookie=new.text.encode())
    assert "form" in subject.problem


@pytest.mark.parametrize(
    ("method", "headers", "counts"),
    [
        ("GET", {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, True),
        ("GET", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, False),
        ("GET", {}, True),
        ("POST", {"sec-fetch-site": "same-origin"}, True),
        ("POST", {"sec-fetch-site": "none"}, False),
        ("POST", {"sec-fetch-site": "same-site", "origin": "http://registry.example.com:9"}, False),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
        ("POST", {"origin": "http://registry.example.com:8080"}, True),
        ("POST", {"origin": "http://registry.example.com:9"}, False),
        ("POST", {"origin": "null"}, False),
        ("DELETE", {}, False),
    ],
)
def test_a_cookie_counts_when_its_user_meant_the_request(method: str, headers: dict[str, str], counts: bool) -> None:
    """A write needs a browser that says it comes from a page of ours; a read may follow a link."""
    sent = {name.encode(): value.encode() for name, value in headers.items()} | {b"host": HOST}
    assert carries_cookie(method, sent) is counts


def scope(*cookies: str, scheme: str = "http") -> dict[str, Any]:
    """Return a read with cookies."""
    headers = [(b"host", HOST), *((b"cookie", cookie.encode()) for cookie in cookies)]
    return {"scheme": scheme, "method": "GET", "headers": headers}


@pytest.mark.parametrize(
    ("found", "scheme", "cookies"),
    [
        (b"a", "http", [f"{PLAIN_NAME}=a"]),
        (b"a", "http", [f"x=1; {PLAIN_NAME}=a; y=2"]),
        (b"a", "https", [f"{SECURE_NAME}=a"]),
        # A proxy in front ends TLS.
        (b"a", "http", [f"{SECURE_NAME}=a; {PLAIN_NAME}=b"]),
        # Planted over plain HTTP by somebody between.
        (None, "https", [f"{PLAIN_NAME}=a"]),
        (None, "http", [f"{PLAIN_NAME}=a; {PLAIN_NAME}=b"]),
        (None, "http", [f"{PLAIN_NAME}=a", f"{PLAIN_NAME}=a"]),
        (None, "http", [f"x{PLAIN_NAME}=a"]),
        (None, "http", []),
    ],
)
def test_the_session_is_the_one_cookie_of_its_name(found: bytes | None, scheme: str, cookies: list[str]) -> None:
    """Over TLS only of the name that nobody else can set; of two of a name, neither."""
    assert session_of(scope(*cookies, scheme=scheme)) == found


@pytest.mark.parametrize(
    "page",
    [
        "//evil.example/",
        "/\\evil.example",
        "https://evil.example/ui/",
        "/ui//evil.example",
        "/ui/\\evil",
        "/ui/services\r\nset-cookie: a=b",
        "/ui/services\n",
        "ui/services",
        "javascript:alert(1)",
        "/uievil",
        "/v1/events",
        "/ui/login?next=/ui/login",
        "/ui/logout",
        "/ui/" + "a" * 3000,
        "",
    ],
)
def test_a_sign_in_leads_to_no_other_host(page: str) -> None:
    """What is no page of ours leads to the first one."""
    assert own_page(page) == FIRST_PAGE


@pytest.mark.parametrize(
    "page",
    ["/ui/services", "/ui/services/shop/endpoints/10.0.0.1%3A80", "/ui/events?service=shop&kind=a/b", "/docs", "/ui/"],
)
def test_a_sign_in_leads_back_to_the_page_that_was_asked_for(page: str) -> None:
    """With its filters."""
    assert own_page(page) == page


@given(st.text(alphabet="/\\:.?#@%uidocs-evl \t\n", max_size=30))
def test_whatever_is_asked_for_stays_on_this_host(page: str) -> None:
    """One slash at the beginning, and nothing that a browser would read as another host."""
    led = own_page(page)
    assert led.startswith(("/ui", "/docs"))
    assert not {"\\", "\n", "\t", " "} & set(led)
    assert "//" not in led.partition("?")[0]
