"""The context of clients that speak to `http://` alone."""

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""It trusts nobody. Without it, httpx reads all authorities that there are for each client: 45 ms of processor time."""
