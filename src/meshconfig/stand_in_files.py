"""Files for validation in the place of those that only the machines of Envoys have: certificates, keys, secrets.

Nobody trusts the certificate, and its key protects nothing.
"""

from collections.abc import Mapping

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBXTCCAQOgAwIBAgIBATAKBggqhkjOPQQDAjAdMRswGQYDVQQDDBJ2YWxpZGF0
aW9uLmludmFsaWQwIBcNMDAwMTAxMDAwMDAwWhgPOTk5OTEyMzEyMzU5NTlaMB0x
GzAZBgNVBAMMEnZhbGlkYXRpb24uaW52YWxpZDBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABAEj9YbMrLC1LdjtsMc0JvpLYfzqYXhrdMJPc7KjoW4GlvYvZalNpLkg
JMfkfVYuWTLrj7oZBp13N7EugUpn5jmjMjAwMB0GA1UdEQQWMBSCEnZhbGlkYXRp
b24uaW52YWxpZDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIFqu
YZ6U9dOmifUqhl1zNEFwS2ZPG0EWUhD9N2jA6vq0AiEA6FjIBQu3RQc3OjUQkoCl
lq2OD4bs9SXTlx6BSdcLv+k=
-----END CERTIFICATE-----
"""
"""A self-signed certificate, valid from 2000 to 9999, that is its own authority."""

PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgQYZUk5LKGeGupLVW
jn1GG7O2ZZGQqj4/izhbKuas5mehRANCAAQBI/WGzKywtS3Y7bDHNCb6S2H86mF4
a3TCT3Oyo6FuBpb2L2WpTaS5ICTH5H1WLlky64+6GQaddzexLoFKZ+Y5
-----END PRIVATE KEY-----
"""
"""The key of the certificate."""

JWKS = (
    '{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"validation",'
    '"x":"ASP1hsyssLUt2O2wxzQm-kth_OpheGt0wk9zsqOhbgY","y":"lvYvZalNpLkgJMfkfVYuWTLrj7oZBp13N7EugUpn5jk"}]}'
)
"""A set of keys with the public key of the certificate: Envoy refuses a set without keys."""

_SECRETS = '{"resources":[]}'
"""A discovery response without secrets."""

DISCOVERY_RESPONSE_FILE = "response.json"
"""The file, in the directory of a validation, for resources that Envoys read from files."""

FILES: Mapping[str, bytes] = {DISCOVERY_RESPONSE_FILE: _SECRETS.encode()}
"""The files of the directory of a validation, by name."""
