"""Filters of a gateway or an edge that ask who sends a request, and what each route wants of them.

Listeners and routes reach an Envoy one after the other. So a filter in the chain stops every request whose route does
not say otherwise, and its name stays when its settings change: what is late is refused, and never let through.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from meshconfig.cluster import name_of, speaks_http2
from meshconfig.definition.authentication import Authentication, ExternalAuthorization, Jwt
from meshconfig.definition.dependency import Dependency
from meshconfig.proto_json import Document, duration, extension, typed

Value = TypeVar("Value")

_HTTP = "envoy.extensions.filters.http"
_JWT = "envoy.filters.http.jwt_authn"
_EXTERNAL = "envoy.filters.http.ext_authz"
_SEEN_HEADERS = ("accept", "cookie", "origin", "referer", "traceparent", "user-agent")
"""Request headers that an authorizing service gets over HTTP, besides Authorization and those that begin with x-."""
_REFUSAL_HEADERS = ("location", "set-cookie", "www-authenticate")
"""Headers of an authorizing service's refusal that the client gets, so that it can send it to a login."""


class Guards(Struct, frozen=True):
    """The authentication of a whole listener.

    Attributes:
        jwts: each kind of token that one of its routes wants, by a name that stays while its issuer does.
        externals: each way of asking a service, by the name of its filter.
        clusters: the cluster of each service that is asked, and whether it speaks gRPC.
    """

    jwts: Mapping[str, Jwt] = {}
    externals: Mapping[str, ExternalAuthorization] = {}
    clusters: Mapping[str, tuple[str, bool]] = {}

    @property
    def uses(self) -> tuple[str, ...]:
        """The clusters that the filters send requests to."""
        return tuple(sorted({cluster for cluster, _ in self.clusters.values()}))

    def filters(self) -> list[Document]:
        """Return the filters, in the order in which a request passes them."""
        filters = [_removal(headers)] if (headers := self._identity_headers()) else []
        if self.jwts:
            filters.append(_jwt_filter(self.jwts))
        return filters + [self._external_filter(name, external) for name, external in self.externals.items()]

    def of_route(self, authentication: Authentication | None) -> Document:
        """Return the settings that a route brings; without authentication it switches the filters off."""
        wanted = authentication or Authentication()
        settings: Document = {}
        if self.jwts:
            name = next((name for name, jwt in self.jwts.items() if jwt == wanted.jwt), None)
            requirement: Document = {"disabled": True} if name is None else {"requirement_name": name}
            settings[_JWT] = typed(f"{_HTTP}.jwt_authn.v3.PerRouteConfig", requirement)
        for name, external in self.externals.items():
            if external != wanted.external:
                settings[name] = typed(f"{_HTTP}.ext_authz.v3.ExtAuthzPerRoute", {"disabled": True})
        return settings

    def _identity_headers(self) -> list[str]:
        claimed = {header for jwt in self.jwts.values() for header in jwt.claims.values()}
        return sorted(claimed.union(*(external.headers for external in self.externals.values())))

    def _external_filter(self, name: str, external: ExternalAuthorization) -> Document:
        cluster, grpc = self.clusters[external.service]
        time = duration(external.timeout)
        if grpc:
            service: Document = {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": time}}
        else:
            uri = {"uri": f"http://{external.service}", "cluster": cluster, "timeout": time}
            response = {"allowed_client_headers": _patterns(_REFUSAL_HEADERS)}
            if external.headers:
                response["allowed_upstream_headers"] = _patterns(external.headers)
            seen = _patterns(_SEEN_HEADERS)
            seen["patterns"].append({"prefix": "x-"})
            service = {
                "http_service": {"server_uri": uri, "authorization_response": response},
                "allowed_headers": seen,
            }
        fields = {
            "transport_api_version": "V3",
            "failure_mode_allow": external.fail_open,
            # Envoy's own answer would be 403, which says that somebody was refused. Envoy 1.37.0 gives it all the same,
            # and loses the headers of a refusal (its pull requests 43267 and 43104, in 1.37.1).
            "status_on_error": {"code": "ServiceUnavailable"},
            **service,
        }
        return extension(name, f"{_HTTP}.ext_authz.v3.ExtAuthz", fields)


def guards(authentications: Iterable[Authentication | None], services: Mapping[str, Dependency]) -> Guards:
    """Return the authentication of a listener: all that its routes want.

    Args:
        authentications: what each route wants.
        services: the use of each service that is asked.
    """
    wanted = [authentication for authentication in authentications if authentication is not None]
    jwts = _distinct(item.jwt for item in wanted)
    externals = _distinct(item.external for item in wanted)
    clusters = {
        external.service: (name_of(use), speaks_http2(use.protocol))
        for external in externals
        for use in (services[external.service],)
    }
    return Guards(
        dict(zip(_names(jwt.issuer for jwt in jwts), jwts, strict=True)),
        dict(zip(_names(f"{_EXTERNAL}.{external.service}" for external in externals), externals, strict=True)),
        clusters,
    )


def _distinct(values: Iterable[Value | None]) -> list[Value]:
    """Return the values without repetitions, in an order that follows from them alone."""
    by_bytes = {msgspec.json.encode(value, order="sorted"): value for value in values if value is not None}
    return [value for _, value in sorted(by_bytes.items())]


def _names(texts: Iterable[str]) -> list[str]:
    """Return the texts, the second and later of equal ones with a number."""
    names: list[str] = []
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
        names.append(text if counts[text] == 1 else f"{text}#{counts[text]}")
    return names


def _removal(headers: Iterable[str]) -> Document:
    mutations = {"request_mutations": [{"remove": header} for header in headers]}
    return extension(
        "envoy.filters.http.header_mutation",
        f"{_HTTP}.header_mutation.v3.HeaderMutation",
        {"mutations": mutations},
    )


def _jwt_filter(jwts: Mapping[str, Jwt]) -> Document:
    providers = {name: _provider(jwt) for name, jwt in jwts.items()}
    return extension(
        _JWT,
        f"{_HTTP}.jwt_authn.v3.JwtAuthentication",
        {
            "providers": providers,
            "requirement_map": {name: {"provider_name": name} for name in providers},
            # For a route that does not say otherwise.
            "rules": [{"match": {"prefix": "/"}, "requirement_name": min(providers)}],
        },
    )


def _provider(jwt: Jwt) -> Document:
    document: dict[str, Any] = {
        "issuer": jwt.issuer,
        "local_jwks": {"filename": jwt.jwks_file},
        # The app may want to read the token itself.
        "forward": True,
    }
    if jwt.audiences:
        document["audiences"] = list(jwt.audiences)
    if jwt.claims:
        document["claim_to_headers"] = [
            {"header_name": header, "claim_name": claim} for claim, header in sorted(jwt.claims.items())
        ]
    return document


def _patterns(names: Iterable[str]) -> dict[str, list[Document]]:
    return {"patterns": [{"exact": name, "ignore_case": True} for name in names]}
