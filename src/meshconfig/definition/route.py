"""One route: what it matches, and how its requests are changed."""

from collections.abc import Mapping

from meshconfig.definition.policies import RoutePolicies
from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import CookieName, HeaderName, Method, Path, Percent, ServiceName, Text


class Rewrite(StrictBlock, frozen=True, kw_only=True):
    """Changes of what the callee gets: another path, another beginning of the path in place of the matched prefix.

    Attributes:
        path: the whole path.
        prefix: the beginning, in place of the route's prefix.
    """

    path: Path | None = None
    prefix: Path | None = None


class HeaderMatch(StrictBlock, frozen=True, kw_only=True):
    """One condition on a header; exactly one of the conditions is written, and ``invert`` turns it round.

    ``range`` has the first number that matches and the first one behind it that does not.

    Attributes:
        name: the name of the header.
        exact: the whole value.
        prefix: the beginning of the value.
        suffix: the end of the value.
        contains: a part of the value.
        regex: an RE2 expression that the whole value matches.
        range: the first number that matches, and the first one behind it that does not.
        present: whether the header is there.
        invert: whether requests match that do not meet the condition.
    """

    name: HeaderName
    exact: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    contains: str | None = None
    regex: str | None = None
    range: tuple[int, int] | None = None
    present: bool | None = None
    invert: bool = False


class Route(RoutePolicies, frozen=True, kw_only=True):
    """One route of a dependency: what it matches, and the policies of its requests.

    Attributes:
        path: the exact path; of path, prefix and regex one is written.
        prefix: the beginning of the path.
        regex: an RE2 expression that the whole path matches.
        query: query parameters with these values.
        rewrite: changes of the path that the callee gets.
        methods: the methods; all unless written.
        headers: conditions on headers, all of which have to be met.
        cookie: cookies with these values.
        version: metadata of the endpoints that serve it; the whole service where there are none.
        split: shares of whole services, in percent; 100 together.
        stat_prefix: the name of the route in statistics; made of its match unless written.
    """

    path: Path | None = None
    prefix: Path | None = None
    regex: str | None = None
    query: Mapping[Text, str] = {}
    rewrite: Rewrite | None = None
    methods: tuple[Method, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    cookie: Mapping[CookieName, Text] = {}
    version: Mapping[Text, str | bool] | None = None
    split: Mapping[ServiceName, Percent] | None = None
    stat_prefix: str = ""
