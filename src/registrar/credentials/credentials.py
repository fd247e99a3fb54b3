"""The credential of this process, as its settings name it."""

import math
from collections.abc import Mapping
from pathlib import Path

from registrar.config.settings import LoginMethod, Settings
from registrar.credentials.aws_identity import aws_region
from registrar.credentials.aws_login import AwsLogin
from registrar.credentials.envoy_token import EnvoyTokenFile
from registrar.credentials.session import SessionToken
from registrar.credentials.static_token import StaticToken, WatchedToken
from registrar.event_log import EventLogger
from registrar.identity.resolver import Identity

log = EventLogger(__name__)


class Credentials:
    """The credential of the requests to the registry.

    Args:
        settings: the settings of the start.
        identity: the instance that logs in.
        environ: names the AWS region, and the source of the AWS keys.

    Attributes:
        login: the login; None where a token is used, or nothing.
        token: the static token of the requests, which may be empty.
        envoy: the file of the token of the Envoy beside this process; None where there is none.
    """

    def __init__(self, settings: Settings, identity: Identity, environ: Mapping[str, str]) -> None:
        self.token = WatchedToken(settings.bearer, settings.token_file)
        # Whether there was something to send when the settings were read last, so that a warning of it is logged once.
        self._sends = settings.has_credential
        self.login: AwsLogin | None = None
        if settings.login is LoginMethod.AWS:
            region = aws_region(environ, identity.region)
            self.login = AwsLogin(region, settings.login_audience or "", identity.instance_id, environ)
        self._envoy_token = WatchedToken(
            settings.envoy_token.reveal() if settings.envoy_token else "", settings.envoy_token_source
        )
        self.envoy: EnvoyTokenFile | None = None
        if settings.envoy_token_file:
            self.envoy = EnvoyTokenFile(Path(settings.envoy_token_file), self._token_for_envoy)
        if self.envoy is not None and self.login is not None:
            self.login.renewed = self.envoy.wake.set

    @property
    def of_requests(self) -> AwsLogin | StaticToken:
        """The credential that the client sends."""
        return self.login or StaticToken(self.token)

    def reload(self, settings: Settings) -> None:
        """Follow new settings; the kind of the login is read at the start only."""
        if not self._sends:
            warn_of_plain_text(settings)
        self._sends = settings.has_credential
        # Where the new settings log in, the token serves until the restart that this needs.
        if self.login is None and settings.login is None:
            self.token.replace(settings.bearer, settings.token_file)
        if settings.envoy_token is not None:
            self._envoy_token.replace(settings.envoy_token.reveal(), settings.envoy_token_source)
        if self.envoy is not None:
            self.envoy.wake.set()

    def _token_for_envoy(self) -> SessionToken | None:
        """Return the newest token for Envoy; a static one has no end."""
        if self.login is not None:
            return self.login.envoy_token
        token = self._envoy_token.read()
        return SessionToken(token, math.inf) if token else None


def warn_of_plain_text(settings: Settings) -> None:
    """Log that a token is about to leave this machine unencrypted, if that is so."""
    if settings.has_credential and settings.registry_url.exposed:
        log.warning(
            "token_in_plain_text",
            registries=settings.registry_url.exposed,
            meaning="the token is sent unencrypted; anyone who can read the traffic can use it",
            fix="use https:// in REGISTRAR_REGISTRY_URL",
        )
