"""Redaction: no secret by its field's name or its look is left, and everything else is as it was."""

import itertools
import json
import time
from typing import Any

import pytest

from registryctl.redaction import REDACTED, redact, redact_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://app:s3cr3t@db:5432/x", "postgresql://[redacted]@db:5432/x"),
        (
            "postgresql://app@db/x?password=s3cr3t&sslmode=require",
            "postgresql://[redacted]@db/x?password=[redacted]&sslmode=require",
        ),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("authorization: basic YWJj", "authorization: basic [redacted]"),
        ("token=abc, next", "token=[redacted], next"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln", "[redacted]"),
        ("key AKIAIOSFODNN7EXAMPLE here", "key [redacted] here"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[redacted]"),
        ("GET http://10.0.0.5:80/healthz: 200", "GET http://10.0.0.5:80/healthz: 200"),
        ("the basics of a token", "the basics of a token"),
    ],
)
def test_secrets_are_known_by_their_look(text: str, expected: str) -> None:
    """Passwords in URLs, credentials of HTTP, assignments, keys and signed tokens go; other text stays."""
    assert redact_text(text) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"db_password": "x", "name": "y"}, {"db_password": "[redacted]", "name": "y"}),
        (
            {"apiKey": "x", "api-key": "y", "monkey": "z"},
            {"apiKey": "[redacted]", "api-key": "[redacted]", "monkey": "z"},
        ),
        (
            {"header": {"key": "authorization", "value": "abc"}},
            {"header": {"key": "authorization", "value": "[redacted]"}},
        ),
        ({"header": {"key": "x-zone", "value": "abc"}}, {"header": {"key": "x-zone", "value": "abc"}}),
        ({"private_key": {"inline_string": "x"}}, {"private_key": "[redacted]"}),
        ({"private_key": {"filename": "/etc/key.pem"}}, {"private_key": {"filename": "/etc/key.pem"}}),
        ([{"token": ["a", "b"]}, 1, None, True], [{"token": "[redacted]"}, 1, None, True]),
        ({"authToken": "x", "dbPassword": "y"}, {"authToken": "[redacted]", "dbPassword": "[redacted]"}),
        ({"uses_token": True}, {"uses_token": True}),
    ],
)
def test_secrets_are_known_by_the_names_of_fields(document: Any, expected: Any) -> None:
    """Fields that are named like secrets, and headers that carry them, lose their value and keep their name."""
    assert redact(document) == expected


S = "hunter2-Xq9"
USUAL = [
    f"password={S}",
    f"password = {S}",
    f"PASSWORD: {S}",
    f'PASSWORD: "{S} and more"',
    f"db_password={S}",
    f"DB_PASS={S}",
    f"PGPASSWORD={S}",
    f"dbPassword: '{S}'",
    f"DBPassword={S}",
    f"api_key={S}",
    f"apiKey: {S}",
    f"APIKey: {S}",
    f"X-Api-Key: {S}",
    f"x_api_key={S}",
    f"Authorization: Basic {S}",
    f"Authorization: Bearer {S}",
    f"authorization: {S}",
    f"proxy-authorization: Digest username=a, response={S}",
    f"'Authorization': 'Bearer {S}'",
    f"(b'authorization', b'Bearer {S}')",
    f"aws_secret_access_key={S}",
    f"AWS_SECRET_ACCESS_KEY = {S}",
    f"SecretAccessKey: {S}",
    f"aws_session_token={S}",
    f"postgres://user:{S}@host/db",
    f"postgres://user:a/b@{S}@host/db",
    f"postgresql+asyncpg://{S}@host",
    f"see_postgres://user:{S}@host",
    f"host=db user=app password={S} dbname=x",
    f"password='{S}' host=db",
    f"-----BEGIN PRIVATE KEY-----\n{S}\n-----END PRIVATE KEY-----",
    f"-----BEGIN OPENSSH PRIVATE KEY-----\\n{S}\\n-----END OPENSSH PRIVATE KEY-----",
    f"-----BEGIN RSA PRIVATE KEY-----\n{S} and then it was cut",
    f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{S}\n-----END PGP PRIVATE KEY BLOCK-----",
    f"Cookie: a=b; sid={S}",
    f"Set-Cookie: sid={S}; Path=/",
    f"curl -H 'Cookie: a=b; sid={S}'",
    f"curl -H 'X-Api-Key: {S}' http://x",
    f"curl -u admin:{S} http://x",
    f"registrar --token {S} run",
    f"--db-password={S}",
    f"GET /x?a=b&access_token={S}&c=d",
    f"https://x/y?token={S}",
    f"https://x/y?X-Amz-Credential={S}&X-Amz-Signature={S}",
    f'{{"password": "{S}"}}',
    f'prefix {{"password": "{S}", "a": 1}}',
    f'{{"a": {{"client_secret": ["{S}"]}}}} tail',
    json.dumps({"log": json.dumps({"password": S})}),
    json.dumps(json.dumps({"log": json.dumps({"password": f'a "{S}'})})),
    f'msg="{{\\"password\\":\\"{S}\\"}}"',
    f'msg={{\\"token\\": \\"a b {S}\\"}} x',
    f'password="a\\"{S}"',
    f"password: correct horse {S}",
    f"  - secret: correct horse {S}",
    f"password: |\n  first\n  {S}\nname: x",
    f"password:\n  {S}",
    f"password => '{S}'",
    f"<password>{S}</password>",
    f"password=a,{S}",
    f"password=a&{S}",
    f"tokens: [a, {S}]",
    f"client_secret={S}",
    f"my.secret.token={S}",
    f"session_id={S}",
]


@pytest.mark.parametrize("text", USUAL)
def test_usual_spellings_of_secrets_are_redacted(text: str) -> None:
    """In text, in JSON, in JSON within text, as a field of a document, and once more."""
    for whole in (text, f"{text}\n", f"before\n{text}\nafter: 1", json.dumps({"output": text})):
        redacted = redact_text(whole)
        assert S not in redacted, redacted
        assert REDACTED in redacted
        assert redact_text(redacted) == redacted
    assert S not in json.dumps(redact({"output": [text]}))


@pytest.mark.parametrize(
    "token",
    ["eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "hct_ab12_" + "x" * 43],
)
def test_tokens_are_known_behind_every_border(token: str) -> None:
    """An underscore is a border, as are quotes, slashes and backslashes."""
    for text in (f"x_{token}", f'"{token}"', f"/{token}/", f"\\{token}\\", f"a={token};", f"({token})", token):
        assert token not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "connect to http://10.0.0.5:8080/healthz?full=1 failed",
        "http://10.0.0.5:80/a@b",
        "password authentication failed for user app",
        "monkey=1 compass: north bypass=2 keyboard: x tokenizer=y",
        "endpoint: 10.0.0.1:80\nservice: shop\nstatus: HEALTHY",
        "--listen 127.0.0.1:8080 --name shop",
        '{"service": "shop", "version": 12}',
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """An engineer has to be able to read what is left."""
    assert json.loads(redact_text(text)) == json.loads(text) if text.startswith("{") else redact_text(text) == text


HOSTILE = [
    "a",
    "a.",
    "_",
    "-",
    "eyJ",
    "_eyJ",
    "_eyJ_a",
    ".eyJ.",
    "AKIA",
    "a://",
    "a://a:@",
    "a:a@",
    "@",
    "password",
    "password=",
    "password:",
    "_password",
    "password: |\n",
    "password=\\",
    'password="',
    "password='\\",
    "\\",
    '\\"',
    'token=\\"',
    "bearer ",
    " ",
    "\n",
    "\n ",
    " \n",
    "=",
    "a=",
    "--a ",
    "-u a",
    "<a>",
    "<a ",
    "[",
    "{",
    "cookie",
    "cookie:",
    "&a",
    "a&",
    "password=&a",
    ",",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN ",
    "-----END ",
    "ghp_",
    "aA",
    "AAa",
]


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    """Eight times the text takes about eight times as long; where time is squared it would be 64 times."""
    redact_text(piece)
    short = min(_seconds(piece, 12_500) for _ in range(3))
    # The first of three that is quick enough will do: another process may have had the caches meanwhile.
    longs = (_seconds(piece, 100_000) for _ in range(3))
    tried = list(itertools.takewhile(lambda long: long >= 24 * short + 0.02, longs))
    assert len(tried) < 3, f"{short * 1000:.1f} ms, then {min(tried) * 1000:.1f} ms"


def _seconds(piece: str, size: int) -> float:
    text = piece * (size // len(piece))
    started = time.process_time()
    redact_text(text)
    return time.process_time() - started


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("token:ci-deploy as ann from 10.0.0.9", "token:ci-deploy as ann from 10.0.0.9"),
        ("token:ci-deploy", "token:ci-deploy"),
        ("token:ci as password=hunter2", f"token:ci as password={REDACTED}"),
        ("token:ci, hunter2", f"token:{REDACTED}, hunter2"),
        ("token:hct_s33426zjxtxv6ttz_" + "A" * 43, f"token:{REDACTED}"),
    ],
)
def test_the_name_of_a_principal_is_kept_where_it_is_one(value: str, kept: str) -> None:
    """A reader of a bundle has to see who was refused; elsewhere such a text may be a token."""
    for field in ("principal", "actor", "owner", "created_by"):
        assert redact({field: value}) == {field: kept}
    assert redact({"detail": "token:ci-deploy"}) == {"detail": f"token:{REDACTED}"}
