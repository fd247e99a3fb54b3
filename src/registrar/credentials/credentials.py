"""The credential of this process, as its settings name it."""

from collections.abc import Mapping

from registrar.config.settings import LoginMethod, Settings
from registrar.credentials.aws_identity import aws_region
from registrar.credentials.aws_login import AwsLogin
from registrar.credentials.static_token import StaticToken, WatchedToken
from registrar.identity.resolver import Identity


class Credentials:
    """The credential of the requests to the registry.

    Args:
        settings: the settings of the start.
        identity: the instance that logs in.
        environ: names the AWS region, and the source of the AWS keys.

    Attributes:
        login: the login; None where a token is used, or nothing.
    """

    def __init__(self, settings: Settings, identity: Identity, environ: Mapping[str, str]) -> None:
        self._token = WatchedToken(settings.bearer, settings.token_file)
        self.login: AwsLogin | None = None
        if settings.login is LoginMethod.AWS:
            region = aws_region(environ, identity.region)
            self.login = AwsLogin(region, settings.login_audience, identity.instance_id, environ)

    @property
    def of_requests(self) -> AwsLogin | StaticToken:
        """The credential that the client sends."""
        return self.login or StaticToken(self._token)

    def reload(self, settings: Settings) -> None:
        """Follow new settings; the kind of the login is read at the start only."""
        if self.login is None:
            self._token.replace(settings.bearer, settings.token_file)
