"""``registrar login``: log in once and write the token of the Envoy beside this process, before that Envoy starts."""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence

from registrar.commands.flags import add_flags, settings_of
from registrar.config.settings import Settings
from registrar.credentials.credentials import Credentials, warn_of_plain_text
from registrar.endpoint.endpoints import identity_sources
from registrar.errors import ConfigurationError, MetadataUnavailable
from registrar.event_log import configure_logs
from registrar.identity.resolver import resolve_identity
from registrar.registry_client.client import RegistryClient

LOGIN_TIMEOUT = 15.0
"""Seconds for all attempts. Envoy and the app wait for this command, and work without the token too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_flags(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Return 0 when the token is written, otherwise 1.

    Raises:
        ConfigurationError: the settings are invalid or name no file for the token, or no source names the instance.
    """
    settings = settings_of(arguments)
    configure_logs(settings.log_level)
    if not settings.envoy_token_file:
        raise ConfigurationError(["REGISTRAR_ENVOY_TOKEN_FILE: not set; this command writes Envoy's token into it"])
    missing = asyncio.run(write_envoy_token(settings))
    if missing:
        sys.stderr.write(
            f"registrar: no token within {LOGIN_TIMEOUT:g}s: {missing}; Envoy starts without one, and takes the one "
            "that `registrar run` writes later\n"
        )
    return 1 if missing else 0


async def write_envoy_token(settings: Settings) -> str:
    """Write the token; return why that was not possible in time, or an empty text.

    Raises:
        ConfigurationError: no source names the instance.
    """
    warn_of_plain_text(settings)
    try:
        identity = await resolve_identity(identity_sources(settings, os.environ))
    except MetadataUnavailable as error:
        return str(error)
    credentials = Credentials(settings, identity, os.environ)
    file, login = credentials.envoy, credentials.login
    if file is None:
        return "REGISTRAR_ENVOY_TOKEN_FILE is not set"
    async with RegistryClient(
        settings.registry_url, credential=credentials.of_requests, tls=settings.registry_tls
    ) as client:
        tasks = [asyncio.ensure_future(file.run())]
        if login is not None:
            tasks.append(asyncio.ensure_future(login.run(client)))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOGIN_TIMEOUT):
                    await file.first_written.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    if file.written is not None:
        return ""
    if login is not None and login.failure is not None:
        return login.failure.reason
    return file.problem or "there is no token to write; set REGISTRAR_LOGIN=aws or REGISTRAR_ENVOY_TOKEN_SOURCE"
