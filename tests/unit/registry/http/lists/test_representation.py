"""Which representation of a document a request gets: conditions, compression, and what is kept of all that."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.http.lists.document import Conditions, Document, accepts_gzip, conditions_of
from registry.http.lists.kept import Dated, Kept

LARGE = Document(b"[%b]" % b",".join([b'{"a":1}'] * 1000))
ETAG = LARGE.etag


@pytest.mark.parametrize(
    ("held", "status"),
    [
        (None, 200),
        (ETAG, 304),
        (ETAG.removeprefix(b"W/"), 304),
        (b"*", 304),
        (b" * ", 304),
        (b'"a", ' + ETAG, 304),
        (b'"a",' + ETAG + b' , W/"b"', 304),
        (ETAG.removeprefix(b"W/").strip(b'"'), 200),
        (b"w/" + ETAG.removeprefix(b"W/"), 200),
        (b'"a"', 200),
        (b"", 200),
        (b"*, *", 200),
    ],
)
def test_a_client_that_holds_it_gets_304(held: bytes | None, status: int) -> None:
    """By weak comparison, of each entity tag that the client names (RFC 9110, 13.1.2)."""
    for compressed in (False, True):
        representation = LARGE.represented_for(Conditions(held, compressed))
        assert representation.status == status
        assert (b"etag", ETAG) in representation.headers
        assert (b"vary", b"accept-encoding") in representation.headers
        assert (representation.body == b"") is (status == 304)


@given(st.binary(max_size=3000))
def test_the_tag_is_of_the_content(body: bytes) -> None:
    """Equal documents share one in every process; others do not."""
    assert Document(body).etag == Document(bytes(body)).etag
    assert Document(body + b" ").etag != Document(body).etag


def test_a_compressed_document_is_the_same_document() -> None:
    """It is made once, and says so; a short one is not worth it, and a huge one would hold up others."""
    packed = LARGE.represented_for(Conditions(None, gzip=True))
    headers = dict(packed.headers)
    assert gzip.decompress(packed.body) == LARGE.body
    assert (headers[b"content-encoding"], headers[b"content-length"]) == (b"gzip", b"%d" % len(packed.body))
    assert LARGE.represented_for(Conditions(None, gzip=True)) is packed
    assert b"content-encoding" not in dict(LARGE.represented_for(Conditions()).headers)
    for body in (b"[]", b" " * 1_100_000):
        assert Document(body).represented_for(Conditions(None, gzip=True)).body == body


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        (b"", False),
        (b"gzip", True),
        (b"GZIP", True),
        (b"deflate, gzip;q=0.5", True),
        (b"gzip;q=0", False),
        (b"gzip ; q=0.000", False),
        (b"*", True),
        (b"*;q=0", False),
        (b"gzip;q=0, *", False),
        (b"identity", False),
        (b"x-gzip", False),
        (b"gzip;q=many", False),
        (b"br;q=1.0, gzip;q=0.8, *;q=0.1", True),
    ],
)
def test_gzip_is_for_who_takes_it(header: bytes | None, accepted: bool) -> None:  # a parameter of the test
    """As RFC 9110 weighs codings; a weight that is none counts as none."""
    assert accepts_gzip(header) is accepted


@given(st.binary(max_size=60))
def test_every_header_can_be_read(header: bytes) -> None:
    """Whatever a client sends there."""
    assert accepts_gzip(header) in (True, False)
    assert Conditions(header).are_met(ETAG) in (True, False)


def test_the_conditions_of_a_browser() -> None:
    """Several headers are one list; a page of another site gets nothing compressed (BREACH)."""
    several = [(b"if-none-match", b'"a"'), (b"if-none-match", ETAG), (b"accept-encoding", b"gzip")]
    assert conditions_of(several) == Conditions(b'"a",' + ETAG, gzip=True)
    assert not conditions_of([*several, (b"cookie", b"a=b")]).gzip
    assert not conditions_of([*several, (b"sec-fetch-site", b"cross-site")]).gzip
    assert conditions_of([*several, (b"sec-fetch-site", b"same-origin"), (b"cookie", b"a=b")]).gzip


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 120)), max_size=40))
def test_what_is_kept_has_a_bound(puts: list[tuple[int, int]]) -> None:
    """What was asked for last stays, unless it is too large by itself."""
    kept: Kept[Dated] = Kept(100)
    sizes: dict[int, int] = {}
    for key, size in puts:
        value = Dated((key,))
        kept.put(key, value, size)
        sizes[key] = size
        assert (kept.get(key) is value) is (size <= 100)
        assert sum(sizes[each] for each in range(6) if kept.get(each) is not None) <= 100


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    """A question counts as much as a change."""
    kept: Kept[Dated] = Kept(2)
    kept.put("a", Dated(()), 1)
    kept.put("b", Dated(()), 1)
    kept.get("a")
    kept.put("c", Dated(()), 1)
    assert (kept.get("b"), len(kept)) == (None, 2)


@pytest.mark.parametrize(("now", "current"), [(4.9, False), (5.0, True), (9.9, True), (10.0, False)])
def test_what_is_kept_is_current_for_a_time(now: float, current: bool) -> None:  # a parameter of the test
    """And for its state alone."""
    assert Dated((1,), 5.0, 10.0).is_current((1,), now) is current
    assert not Dated((1,), 5.0, 10.0).is_current((2,), now)
