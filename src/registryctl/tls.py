"""TLS to the registry: the authorities that are believed, and the operator's own certificate."""

import ssl
from pathlib import Path

from registryctl.errors import UsageError
from registryctl.settings import Settings
from wire.tls_files import TlsFile, TlsFileError, load_authorities, load_pair


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return the context of connections to the registry.

    Raises:
        UsageError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not any(url.startswith("https:") for url in settings.urls):
        # To read the system's authorities takes longer than a request.
        return context
    try:
        if settings.ca_file:
            load_authorities(context, TlsFile("REGISTRYCTL_CA_FILE", Path(settings.ca_file)))
        else:
            context.load_default_certs()
        if settings.cert_file:
            key = TlsFile("REGISTRYCTL_KEY_FILE", Path(settings.key_file)) if settings.key_file else None
            load_pair(context, TlsFile("REGISTRYCTL_CERT_FILE", Path(settings.cert_file)), key)
    except TlsFileError as error:
        raise UsageError(str(error)) from None
    return context
