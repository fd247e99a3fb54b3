"""`registryctl` at a registry with access on: sign in, tokens, identities, decisions, and advice on each refusal."""

import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from harness.access import bearer, first_token, secret_of
from harness.operator import Said, registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry
from msgspec import Raw

from registryctl.client import ApiClient, read
from registryctl.settings import Settings
from registryctl.token import AccessToken

TOKEN = re.compile(r"^hc[ts]_[a-z2-7]{16}_[A-Za-z0-9_-]{43}$", re.MULTILINE)


class Closed:
    """A registry with access on, and a machine that may have tokens for it.

    Attributes:
        registry: the registry.
        admin: the token of its administrator.
        home: the configuration directory of the machine.
    """

    def __init__(self, served: Registry, admin: str, home: Path) -> None:
        self.registry = served
        self.admin = admin
        self.home = home

    def run(self, *words: str, piped: str = "", **env: str) -> Said:
        """Run `registryctl` with what the machine has stored."""
        return registryctl(self.registry.url, *words, piped=piped, **{"XDG_CONFIG_HOME": str(self.home)} | env)

    def as_admin(self, *words: str) -> Said:
        """Run `registryctl` with the administrator's token, and require that it does what it is asked to."""
        done = self.run(*words, REGISTRYCTL_TOKEN=self.admin)
        assert done.status == 0, done
        return done

    def token(self, name: str, *words: str) -> str:
        """Return a new token."""
        return self.as_admin("token", "create", name, *words).out.strip()


@pytest.fixture(scope="module")
def served(server: Postgres, workplace: Path) -> Iterator[tuple[Registry, str]]:
    """A registry with access on, and its administrator's token."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on") as process:
        admin = first_token(database)
        headers = {"authorization": f"Bearer {admin}"}
        eventually(lambda: process.client.get("/v1/tokens", headers=headers).status_code == 200, within=10)
        yield process, admin


@pytest.fixture
def closed(served: tuple[Registry, str], tmp_path: Path) -> Closed:
    """That registry, and a machine without tokens."""
    return Closed(*served, tmp_path / "config")


def test_login_stores_a_token_that_was_accepted(closed: Closed) -> None:
    """It is stored where only its owner reads it, sent from then on, and forgotten by a logout."""
    assert closed.run("services").status == 4
    done = closed.run("login", piped=f"  {closed.admin}\n")
    assert done.status == 0, done
    assert "token:admin from 127.0.0.1  operator" in done.out
    (stored,) = (closed.home / "headcount" / "tokens").iterdir()
    assert stored.read_text() == f"{closed.admin}\n"
    assert (stat.S_IMODE(stored.stat().st_mode), stat.S_IMODE(stored.parent.stat().st_mode)) == (0o600, 0o700)
    assert closed.run("services").status == 0
    assert str(stored) in closed.run("whoami").out
    left = closed.run("logout")
    assert (left.status, "goes on being good" in left.out, stored.exists()) == (0, True, False)
    assert closed.run("services").status == 4
    assert "no token is stored" in closed.run("logout").out


def test_login_stores_nothing_that_is_refused(closed: Closed) -> None:
    """What is no token, and a token of another registry, changes nothing, and is not repeated."""
    kept = closed.token("kept", "--for", "operator")
    assert closed.run("login", piped=kept).status == 0
    stranger = "hct_aaaaaaaaaaaaaaaa_" + "A" * 43
    refused = closed.run("login", piped=stranger)
    assert (refused.status, "not one of this registry" in refused.err) == (4, True)
    assert "AAAA" not in refused.err
    for piped in ("", "two words", "x" * 5000, "ä"):
        assert closed.run("login", piped=piped).status == 2
    assert "token:kept" in closed.run("whoami").out


def test_a_token_is_no_argument(closed: Closed) -> None:
    """It would be in the history of the shell; the error does not repeat it into the log of a build."""
    done = closed.run("login", closed.admin)
    assert (done.status, "history" in done.err, closed.admin in done.err + done.out) == (2, True, False)


def test_login_takes_a_file(closed: Closed, tmp_path: Path) -> None:
    """--token-file names one; one that cannot be read is an error."""
    file = tmp_path / "token"
    assert closed.run("login", "--token-file", str(file)).status == 2
    file.write_text(closed.admin)
    assert closed.run("login", "--token-file", str(file)).status == 0
    assert closed.run("token", "list").status == 0


def test_the_environment_wins_over_what_is_stored(closed: Closed, tmp_path: Path) -> None:
    """REGISTRYCTL_TOKEN and _TOKEN_FILE are sent instead, and not both at once."""
    envoy = closed.token("environment", "--for", "envoy")
    assert closed.run("login", piped=closed.admin).status == 0
    file = tmp_path / "token"
    file.write_text(envoy)
    for env in ({"REGISTRYCTL_TOKEN": envoy}, {"REGISTRYCTL_TOKEN_FILE": str(file)}):
        done = closed.run("whoami", **env)
        assert "token:environment" in done.out
        assert next(iter(env)) in done.out
    assert closed.run("whoami", REGISTRYCTL_TOKEN=envoy, REGISTRYCTL_TOKEN_FILE=str(file)).status == 2
    assert closed.run("whoami", REGISTRYCTL_TOKEN_FILE=str(tmp_path / "nothing")).status == 2
    assert "wins over it" in closed.run("login", piped=closed.admin, REGISTRYCTL_TOKEN=envoy).err


def test_a_token_is_not_replaced_by_the_password_of_a_url(closed: Closed) -> None:
    """HTTP has one Authorization header; what is sent is never a surprise."""
    url = closed.registry.url.replace("//", "//ann:hunter2@")
    done = closed.run("services", "--url", url, REGISTRYCTL_TOKEN=closed.admin)
    assert (done.status, "only one of them" in done.err, "hunter2" in done.err) == (2, True, False)
    assert closed.run("services", "--url", url).status == 4


def test_a_grant_for_one_service_shows_that_one(closed: Closed) -> None:
    """Lists have what may be read, and what may not be is refused whether it exists or not."""
    for name in ("mine", "theirs"):
        body = {"instance_id": "i-1", "incarnation": 1, "ttl": 600}
        path = f"/v1/services/{name}/endpoints/10.6.0.1:80"
        headers = {"authorization": f"Bearer {closed.admin}"}
        assert closed.registry.client.put(path, json=body, headers=headers).status_code == 200
    own = {"REGISTRYCTL_TOKEN": closed.token("own", "--for", "operator", "--service", "mine")}
    assert [row["name"] for row in closed.run("services", "-o", "json", **own).json["services"]] == ["mine"]
    assert {row["service"] for row in closed.run("events", "-o", "json", **own).json["events"]} == {"mine"}
    assert closed.run("drain", "mine", "10.6.0.1:80", "-r", "x", **own).status == 0
    for name in ("theirs", "nowhere"):
        for words in (("service", name), ("explain", name, "10.6.0.1:80"), ("drain", name, "10.6.0.1:80", "-r", "x")):
            done = closed.run(*words, **own)
            assert (done.status, "Not allowed" in done.err) == (4, True), done
    assert closed.run("undrain", "mine", "10.6.0.1:80", **own).status == 0


def test_a_stored_token_goes_to_its_own_address_alone(closed: Closed) -> None:
    """The same machine under another name is another address, which gets no token."""
    assert closed.run("login", piped=closed.admin).status == 0
    elsewhere = closed.registry.url.replace("127.0.0.1", "localhost")
    assert closed.run("services", "--url", elsewhere).status == 4
    assert closed.run("services", "--url", closed.registry.url.upper().replace("HTTP", "http")).status == 0


def test_a_stored_token_that_others_can_read_is_refused(closed: Closed) -> None:
    """It says so, and a new login mends it."""
    assert closed.run("login", piped=closed.admin).status == 0
    (stored,) = (closed.home / "headcount" / "tokens").iterdir()
    stored.chmod(0o644)
    done = closed.run("services")
    assert (done.status, "can be read by others" in done.err) == (2, True)
    assert closed.run("login", piped=closed.admin).status == 0
    assert closed.run("services").status == 0


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"XDG_CONFIG_HOME": "", "HOME": ""}, "no place for tokens"),
        ({"XDG_CONFIG_HOME": os.devnull}, "cannot be written"),
    ],
)
def test_a_machine_without_a_place_for_tokens(closed: Closed, env: dict[str, str], reason: str) -> None:
    """Login says so, and everything else works."""
    done = closed.run("login", piped=closed.admin, **env)
    assert (done.status, reason in done.err) == (2, True)
    assert closed.run("services", REGISTRYCTL_TOKEN=closed.admin, **env).status == 0


def test_whoami_is_negative_for_nobody(closed: Closed) -> None:
    """Exit status 1 without a token and with a bad one; the words say why and what to do."""
    nobody = closed.run("whoami")
    assert (nobody.status, "no credential was sent" in nobody.out, "registryctl login" in nobody.err) == (1, True, True)
    bad = closed.run("whoami", REGISTRYCTL_TOKEN="hct_x")
    assert (bad.status, "not the form" in bad.out) == (1, True)
    assert closed.run("whoami", "-o", "json", REGISTRYCTL_TOKEN=closed.admin).json["kind"] == "operator"


REFUSED = [
    ("services",),
    ("service", "shop"),
    ("endpoints", "shop"),
    ("explain", "shop", "10.0.0.1:80"),
    ("events",),
    ("events", "--since", "1h"),
    ("subscribers",),
    ("drain", "shop", "10.0.0.1:80", "-r", "x"),
    ("undrain", "shop", "10.0.0.1:80"),
    ("weight", "shop", "10.0.0.1:80", "5", "-r", "x"),
    ("canary", "shop", "10.0.0.1:80", "--clear"),
    ("deregister", "shop", "-r", "x"),
    ("expiry",),
    ("pause", "-r", "x", "--for", "1m"),
    ("resume",),
    ("audit",),
    ("audit", "--since", "1h"),
    ("token", "create", "x", "--for", "admin"),
    ("token", "list"),
    ("token", "rotate", "aaaaaaaaaaaaaaaa"),
    ("token", "revoke", "aaaaaaaaaaaaaaaa"),
    ("identity", "set", "x", "--dns", "x.example.org", "--for", "envoy"),
    ("identity", "list"),
    ("identity", "remove", "x"),
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_each_refusal_says_what_to_do(closed: Closed, words: tuple[str, ...]) -> None:
    """401 without and with a bad token, 403 with one that may do nothing of it: status 4, and a way on."""
    without = closed.run(*words)
    assert (without.status, "registryctl login" in without.err) == (4, True), without
    bad = closed.run(*words, REGISTRYCTL_TOKEN="hct_aaaaaaaaaaaaaaaa_" + "A" * 43)
    assert (bad.status, "from REGISTRYCTL_TOKEN" in bad.err, "AAAA" in bad.err) == (4, True, False), bad
    name = "nothing" + re.sub(r"\W", "", "".join(words))
    little = closed.run(*words, REGISTRYCTL_TOKEN=closed.token(name[:60], "--verb", "debug"))
    assert (little.status, "registryctl whoami" in little.err) == (4, True), little


@pytest.mark.parametrize(
    ("words", "kind", "grants"),
    [
        (
            ("--for", "registrar", "--service", "shop", "--address", "peer"),
            "registrar",
            [{"verbs": ["register"], "services": ["shop"], "addresses": ["peer"]}],
        ),
        (("--for", "envoy"), "envoy", [{"verbs": ["discover"], "services": ["*"]}]),
        (("--for", "operator"), "operator", [{"verbs": ["read", "operate", "inspect", "observe"], "services": ["*"]}]),
        (
            ("--for", "on-call"),
            "operator",
            [{"verbs": ["read", "operate", "inspect", "debug", "observe"], "services": ["*"]}],
        ),
        (("--for", "prometheus"), "machine", [{"verbs": ["read", "observe"], "services": ["*"]}]),
        (
            ("--verb", "read", "--verb", "operate", "--service", "web-*", "--kind", "operator"),
            "operator",
            [{"verbs": ["read", "operate"], "services": ["web-*"]}],
        ),
    ],
    ids=("registrar", "envoy", "operator", "on-call", "prometheus", "options"),
)
def test_tokens_are_made_by_sets_and_by_options(
    closed: Closed, words: tuple[str, ...], kind: str, grants: list[dict[str, object]]
) -> None:
    """The token has the grants that its words say, and works."""
    name = "made-" + re.sub(r"\W", "", "".join(words))
    made = closed.as_admin("token", "create", name, *words, "--ttl", "2h", "-o", "json").json
    assert TOKEN.match(made["token"])
    details = made["details"]
    assert (details["name"], details["kind"], details["networks"]) == (name, kind, [])
    assert details["grants"] == [{"addresses": [], "instance": "any"} | grant for grant in grants]
    assert 7100 < details["expires_at"] - details["created_at"] < 7300
    assert f"token:{name}" in closed.run("whoami", REGISTRYCTL_TOKEN=made["token"]).out


def test_what_operators_and_scrapers_need_is_granted(closed: Closed) -> None:
    """The set for operators is enough for every verb but those of access; that for Prometheus for what it reads."""
    operator = closed.token("an-operator", "--for", "operator")
    for words in (("services",), ("events",), ("subscribers",), ("expiry",), ("check",), ("can", "operate", "shop")):
        assert closed.run(*words, REGISTRYCTL_TOKEN=operator).status == 0, words
    assert closed.run("pause", "s", "-r", "x", "--for", "1m", REGISTRYCTL_TOKEN=operator).status == 0
    assert closed.run("resume", "s", REGISTRYCTL_TOKEN=operator).status == 0
    headers = {"authorization": f"Bearer {closed.token('a-scraper', '--for', 'prometheus')}"}
    for path in ("/metrics", "/v1/prometheus/targets?port=metrics"):
        assert closed.registry.client.get(path, headers=headers).status_code == 200, path


def test_a_token_is_written_to_a_new_file(closed: Closed, tmp_path: Path) -> None:
    """Only its owner reads it, it is not printed, and nothing is made where the file cannot be."""
    file = tmp_path / "out"
    said = closed.as_admin("token", "create", "filed", "--for", "envoy", "--out", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert TOKEN.fullmatch(file.read_text().strip())
    assert TOKEN.search(said.out) is None
    for out in (file, tmp_path / "no" / "directory"):
        again = closed.run(
            "token", "create", "filed-2", "--for", "envoy", "--out", str(out), REGISTRYCTL_TOKEN=closed.admin
        )
        assert again.status == 2
    refused = tmp_path / "refused"
    assert closed.run("token", "create", "x", "--for", "envoy", "--out", str(refused)).status == 4
    assert not refused.exists()
    names = [token["name"] for token in closed.as_admin("token", "list", "-o", "json").json["tokens"]]
    assert "filed-2" not in names


def test_grants_come_from_a_file_too(closed: Closed, tmp_path: Path) -> None:
    """Several grants, as the API has them; what is no JSON list is an error before anything is asked."""
    file = tmp_path / "grants.json"
    grants = [{"verbs": ["read"], "services": ["a"]}, {"verbs": ["operate"], "services": ["b"]}]
    file.write_text(json.dumps(grants))
    made = closed.as_admin("token", "create", "two-grants", "--grants", str(file), "-o", "json").json
    assert [grant["verbs"] for grant in made["details"]["grants"]] == [["read"], ["operate"]]
    file.write_text("{}")
    for words in (("--grants", str(file)), ("--grants", str(tmp_path / "none")), ("--grants", "-", "--for", "envoy")):
        assert closed.run("token", "create", "x", *words, REGISTRYCTL_TOKEN=closed.admin).status == 2


def test_a_token_is_rotated_listed_and_revoked(closed: Closed) -> None:
    """By its name while one has it, by its id while two have it; the successor works and the old one ends."""
    first = closed.token("turning", "--for", "envoy")
    second = closed.as_admin("token", "rotate", "turning", "--overlap", "10m").out.strip()
    assert first != second
    both = closed.run("token", "revoke", "turning", REGISTRYCTL_TOKEN=closed.admin)
    assert (both.status, "2 living tokens are called turning" in both.err) == (2, True)
    closed.as_admin("token", "revoke", first.split("_")[1])
    assert closed.run("whoami", REGISTRYCTL_TOKEN=first).status == 1
    assert closed.run("whoami", REGISTRYCTL_TOKEN=second).status == 0
    third = closed.as_admin("token", "rotate", "turning", "--overlap", "0").out.strip()
    assert closed.run("whoami", REGISTRYCTL_TOKEN=second).status == 1
    closed.as_admin("token", "revoke", "turning")
    assert closed.run("whoami", REGISTRYCTL_TOKEN=third).status == 1
    listed = closed.as_admin("token", "list")
    assert "turning" not in listed.out
    assert "have ended" in listed.err
    assert re.search(r"turning +envoy +revoked", closed.as_admin("token", "list", "--all").out)
    gone = closed.run("token", "revoke", "turning", REGISTRYCTL_TOKEN=closed.admin)
    assert gone.status == 3


def test_identities_are_set_listed_and_removed(closed: Closed) -> None:
    """An AWS role's registrations are bound to its own address and session unless an option says otherwise."""
    role = ("--aws", "111122223333:shop-task-role", "--for", "registrar", "--service", "shop")
    set_ = closed.as_admin("identity", "set", "shop", *role, "--limit", "endpoints=200", "-o", "json").json
    assert (set_["source"], set_["match"], set_["limits"]) == ("aws", "111122223333:shop-task-role", {"endpoints": 200})
    own, envoys = set_["grants"]
    assert own == {"verbs": ["register"], "services": ["shop"], "addresses": ["peer"], "instance": "session"}
    assert (envoys["verbs"], envoys["services"]) == (["discover"], ["*"])
    wide = closed.as_admin("identity", "set", "shop", *role, "--address", "10.0.0.0/8", "--instance", "any").out
    assert "register: shop at 10.0.0.0/8" in wide
    assert "its own instances" not in wide
    assert "aws 111122223333:shop-task-role" in closed.as_admin("identity", "list").out
    yes = closed.as_admin("can", "register", "shop", "--endpoint", "10.0.0.1:80", "--as", "identity:shop")
    assert yes.out.startswith("yes")
    closed.as_admin("identity", "remove", "shop")
    assert closed.run("identity", "remove", "shop", REGISTRYCTL_TOKEN=closed.admin).status == 3
    for words in (
        (),
        ("--dns", "a", "--spiffe", "spiffe://a"),
        ("--dns", "a", "--limit", "x=1"),
        ("--dns", "a", "--limit", f"services={10**30}"),
    ):
        done = closed.run("identity", "set", "x", *words, "--for", "envoy", REGISTRYCTL_TOKEN=closed.admin)
        assert done.status == 2, done


def test_can_explains_each_decision(closed: Closed) -> None:
    """Exit status 0 and 1; a no has the reason, and a way to a yes."""
    token = closed.token("limited", "--for", "registrar", "--service", "shop", "--address", "10.7.0.0/16")
    own = {"REGISTRYCTL_TOKEN": token}
    yes = closed.run("can", "register", "shop", "--endpoint", "10.7.0.1:80", **own)
    assert (yes.status, yes.out.splitlines()[0]) == (0, "yes  token:limited: register shop 10.7.0.1:80")
    for words, reason in (
        (("register", "web"), "no grant of token:limited"),
        (("register", "shop", "--endpoint", "10.8.0.1:80"), "10.7.0.0/16 alone"),
        (("operate", "shop"), "no grant of token:limited"),
    ):
        no = closed.run("can", *words, **own)
        assert (no.status, no.out.startswith("no  "), reason in no.out, "token create" in no.err) == (
            1,
            True,
            True,
            True,
        )
    nobody = closed.run("can", "read")
    assert (nobody.status, "registryctl login" in nobody.err) == (1, True)
    about = closed.run("can", "operate", "shop", "--as", "token:limited", "-o", "json", REGISTRYCTL_TOKEN=closed.admin)
    assert (about.status, about.json["allowed"], about.json["enforced"]) == (1, False, True)
    assert closed.run("can", "read", "--as", "token:limited", **own).status == 4
    assert closed.run("can", "red").err.endswith("did you mean read?\n")
    assert closed.run("can", "drain").err.endswith("to drain is `operate`\n")


def test_can_says_what_a_request_is_answered(closed: Closed) -> None:
    """For a stolen token, for an Envoy's, and for a neighbour on loopback without any; owners count too."""
    client = closed.registry.client
    endpoint = {"instance_id": "i", "incarnation": 1, "ttl": 600}
    for service in ("can-shop", "can-web"):
        url = f"/v1/services/{service}/endpoints/10.7.0.1:80"
        assert client.put(url, json=endpoint, headers=bearer(closed.admin)).status_code == 200
    tokens = {
        "shop": closed.token("can-shop", "--for", "registrar", "--service", "can-shop", "--address", "10.7.0.0/16"),
        "envoy": closed.token("can-envoy", "--for", "envoy"),
        "nobody": "",
    }
    for token in tokens.values():
        headers = bearer(token) if token else {}
        for service in ("can-shop", "can-web"):
            of, poll = (
                f"/v1/services/{service}",
                {"version_info": "x:1", "node": {"id": "e"}, "resource_names": [service]},
            )
            override = {"weight": 5, "reason": "x"}
            for words, answer in (
                (("discover", service), client.post("/v3/discovery:endpoints", json=poll, headers=headers)),
                (("read", service), client.get(of, headers=headers)),
                (
                    ("operate", service),
                    client.put(f"{of}/endpoints/10.7.0.1:80/override", json=override, headers=headers),
                ),
                (
                    ("register", service, "--endpoint", "10.7.0.1:80"),
                    client.put(f"{of}/endpoints/10.7.0.1:80", json=endpoint, headers=headers),
                ),
                (
                    ("register", service, "--endpoint", "10.7.0.2:80"),
                    client.put(f"{of}/endpoints/10.7.0.2:80", json=endpoint, headers=headers),
                ),
                (
                    ("register", service, "--endpoint", "10.8.0.2:80"),
                    client.put(f"{of}/endpoints/10.8.0.2:80", json=endpoint, headers=headers),
                ),
                (("observe",), client.get("/metrics", headers=headers)),
                (("admin",), client.get("/v1/tokens", headers=headers)),
            ):
                said = closed.run("can", *words, **({"REGISTRYCTL_TOKEN": token} if token else {}))
                assert (said.status == 0) is answer.is_success, (words, said, answer.status_code, answer.text)
                assert answer.status_code in (200, 401, 403, 409)
    owned = closed.run("can", "register", "can-shop", "--endpoint", "10.7.0.1:80", REGISTRYCTL_TOKEN=tokens["shop"])
    assert "belongs to another identity" in owned.out


def test_can_counts_other_services_at_the_address(closed: Closed) -> None:
    """A registration takes its address from every service, so the owner of another service's endpoint refuses it."""
    client = closed.registry.client
    endpoint = {"instance_id": "i", "incarnation": 1, "ttl": 600}
    theirs, own = (f"/v1/services/at-{name}/endpoints/10.7.3.1:80" for name in ("web", "shop"))
    assert client.put(theirs, json=endpoint, headers=bearer(closed.admin)).status_code == 200
    token = closed.token("at-shop", "--for", "registrar", "--service", "at-shop", "--address", "10.7.0.0/16")
    said = closed.run("can", "register", "at-shop", "--endpoint", "10.7.3.1:80", REGISTRYCTL_TOKEN=token)
    assert (said.status, "10.7.3.1:80 belongs to another identity" in said.out, "at-web" in said.out) == (
        1,
        True,
        False,
    )
    assert client.put(own, json=endpoint, headers=bearer(token)).status_code == 409


def test_the_audit_goes_through_pages(closed: Closed) -> None:
    """Its pages go on from `after`, and each entry is there once."""
    for number in range(3):
        closed.token(f"page-{number}", "--for", "envoy")
    eventually(lambda: len(closed.as_admin("audit", "-n", "3", "-o", "json").json["entries"]) == 3, within=5)
    settings = Settings((closed.registry.url,), 5, "ann", {closed.registry.url: AccessToken(closed.admin, "the test")})
    with closing(ApiClient(settings)) as client:
        whole = [read(entry)["id"] for entry in client.pages("/v1/audit", "entries", limit=6, cursor="after")]
        single = [read(entry)["id"] for entry in one_by_one(client, 6)]
    assert len(set(whole)) == 6
    assert single == whole


def one_by_one(client: ApiClient, number: int) -> Iterator[Raw]:
    """Yield the newest entries of the audit, by pages of one."""
    after = None
    for _ in range(number):
        page = read(client.get("/v1/audit", {"limit": 1, "after": after}))
        after = page["next"]
        yield Raw(msgspec.json.encode(page["entries"][0]))


def test_a_bundle_has_no_token_in_it(closed: Closed, tmp_path: Path) -> None:
    """Neither the one that it was made with nor that of another; it says who made it."""
    assert closed.run("login", piped=closed.admin).status == 0
    path = tmp_path / "bundle.tar.gz"
    made = closed.run("bundle", str(path))
    assert made.status == 0, made
    secret = secret_of(closed.admin)
    assert secret not in made.out + made.err
    with tarfile.open(path) as archive:
        contents = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive}
        texts = {name: file.read().decode() for name, file in contents.items() if file is not None}
    assert all(secret not in text for text in texts.values())
    assert json.loads(texts["whoami.json"])["principal"] == "token:admin from 127.0.0.1"
    assert json.loads(texts["state.json"])["access"]["mode"] == "on"


def test_following_events_ends_with_advice_when_the_token_is_revoked(closed: Closed) -> None:
    """A stream is refused like any other request."""
    token = closed.token("follower", "--for", "operator")
    closed.as_admin("token", "revoke", "follower")
    done = closed.run("events", "--follow", REGISTRYCTL_TOKEN=token)
    assert (done.status, "was revoked" in done.err, "registryctl login" in done.err) == (4, True, True)
