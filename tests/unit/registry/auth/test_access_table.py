"""The table of credentials: what is proven of a sender, and when it ends."""

import time

import pytest
from msgspec.structs import replace

from registry.auth.access_table import GRACE, AccessTable
from registry.auth.credential import Credential, Identity
from registry.auth.grants import Grant
from registry.auth.tokens import SESSION, TOKEN, NewToken, new_token, read_token
from registry.auth.verbs import Verb
from registry.core.clock import Clock
from registry.usecases.authentication import Sender

NOW = 1_800_000_000.0
ALL = (Grant((Verb.DISCOVER, Verb.REGISTER)),)
TASK = Identity("shop", "aws", "111122223333:shop", "registrar", ALL)


def made(prefix: str = TOKEN, **fields: object) -> tuple[bytes, Credential]:
    """Return a credential, and the header that proves it."""
    new: NewToken = new_token(prefix)
    name = "ci" if prefix == TOKEN else f"aws:{TASK.match}/task"
    values = {"name": name, "kind": "machine", "expires_at": NOW + 60, "grants": ALL} | fields
    return f"Bearer {new.text}".encode(), Credential(new.id, new.digest, **values)  # type: ignore[arg-type]


def table(*tokens: Credential, identities: tuple[Identity, ...] = ()) -> AccessTable:
    """Return a table with these credentials."""
    access = AccessTable()
    access.replace([token for token in tokens if not token.is_session], identities, ())
    for token in tokens:
        if token.is_session:
            access.add_session(token)
    return access


def problem(access: AccessTable, header: bytes, now: float = NOW, address: str = "10.0.0.9") -> str:
    """Return why a header is not accepted; empty: it is."""
    return access.subject_of(address, header, now=now).problem


def test_tokens_have_their_form() -> None:
    """What is made is read, in whatever the letters of the scheme are; anything cut or added is none."""
    new = new_token(SESSION)
    parts = read_token(new.text.encode())
    assert parts is not None
    assert (parts.prefix, parts.id, parts.digest) == (SESSION, new.id, new.digest)
    assert read_token(new.text[:-1].encode()) is None
    assert read_token(f"{new.text}x".encode()) is None
    assert new.text not in repr(new)


def test_a_token_proves_its_name_until_it_ends() -> None:
    """It expires by PostgreSQL's clock, is revoked, and may be bound to networks."""
    header, token = made(networks=("10.0.0.0/24",))
    access = table(token)
    assert access.subject_of("10.0.0.9", header, now=NOW).name == "token:ci"
    assert access.subject_of("10.0.0.9", header.replace(b"Bearer", b"bEARER"), now=NOW).name == "token:ci"
    assert "may not be used from 10.0.1.9" in problem(access, header, address="10.0.1.9")
    assert "has expired" in problem(access, header, NOW + 60)
    _, revoked = made(revoked_at=NOW)
    access.replace([revoked], (), ())
    assert "not one of this registry" in problem(access, header)


def test_another_secret_of_the_same_id_proves_nothing() -> None:
    """The digest of the whole token decides."""
    header, token = made()
    forged = header[:-1] + (b"A" if header[-1:] != b"A" else b"B")
    assert "not one of this registry" in problem(table(token), forged)


def test_subjects_end_with_their_credentials() -> None:
    """A connection that keeps a subject sees that it ended: by time, by revocation, and by a change of its grants."""
    header, token = made()
    access = table(token)
    kept = access.subject_of("10.0.0.9", header, now=NOW)
    assert access.subject_of("10.0.0.9", header, now=NOW) is kept
    ended = []
    for seconds in (59, 60):
        access.expire(NOW + seconds)
        ended.append(kept.ended)
    assert ended == [False, True]
    fresh = access.subject_of("10.0.0.9", header, now=NOW)
    access.replace([token], (), ())
    assert not fresh.ended, "nothing has changed"
    access.replace([replace(token, grants=())], (), ())
    assert fresh.ended


def test_a_session_has_the_grants_of_its_identity() -> None:
    """They follow the identity, an Envoy's are of discovery alone, and a removed identity ends them."""
    header, session = made(SESSION, identity="shop", session_name="task", grants=())
    envoys_header, envoys = made(SESSION, identity="shop", kind="envoy", discovers=True, grants=())
    access = table(session, envoys, identities=(TASK,))
    subject = access.subject_of("10.0.0.9", header, now=NOW)
    assert (subject.name, subject.owner) == ("aws:111122223333:shop/task", "identity:shop")
    assert subject.reach(Verb.REGISTER).everything
    envoy = access.subject_of("10.0.0.9", envoys_header, now=NOW)
    assert envoy.reach(Verb.DISCOVER).everything
    assert not envoy.reach(Verb.REGISTER).covers("shop")
    access.replace([], (), ())
    assert "was removed" in problem(access, header)


def sessions(access: AccessTable, expires_at: float = NOW + 60) -> tuple[bytes, bytes]:
    """Add the sessions of a login, and return the headers of the registrar and of the Envoy."""
    header, session = made(SESSION, identity="shop", grants=(), expires_at=expires_at)
    envoys_header, envoys = made(
        SESSION, identity="shop", kind="envoy", discovers=True, grants=(), expires_at=expires_at
    )
    assert access.add_session(session)
    assert access.add_session(envoys)
    return header, envoys_header


def test_an_envoys_session_outlives_its_end_while_postgresql_is_away() -> None:
    """For twelve hours, and until registrars have logged in again; a registrar's session does not."""
    access = table(identities=(TASK,))
    header, envoys_header = sessions(access)
    access.mark_read(NOW)
    kept = access.subject_of("10.0.0.9", envoys_header, now=NOW)
    access.mark_away()
    hour = NOW + 3600
    assert "has expired" in problem(access, header, NOW + 60)
    access.expire(hour)
    assert problem(access, envoys_header, hour) == ""
    assert "has expired" in problem(access, envoys_header, NOW + 60 + GRACE)
    ended = [kept.ended]
    access.mark_read(hour)
    for seconds in (299, 300):
        access.expire(hour + seconds)
        ended.append(kept.ended)
    assert ended == [False, False, True]
    assert "has expired" in problem(access, envoys_header, hour + 300)


def test_a_session_that_had_ended_before_the_outage_stays_ended() -> None:
    """A moment without PostgreSQL revives no old token."""
    access = table(identities=(TASK,))
    _, old = sessions(access, NOW - 1)
    access.mark_read(NOW)
    access.mark_away()
    assert "has expired" in problem(access, old)


def test_two_outages_in_a_row_are_one() -> None:
    """Registrars need a minute or two to log in again, and PostgreSQL may not have been back for so long."""
    access = table(identities=(TASK,))
    _, envoys_header = sessions(access)
    access.mark_read(NOW)
    for seconds in (0, 600, 800):
        access.mark_away()
        access.expire(NOW + seconds)
        assert problem(access, envoys_header, NOW + seconds) == ""
        access.mark_read(NOW + seconds)
    access.mark_read(NOW + 2000)
    access.mark_away()
    assert "has expired" in problem(access, envoys_header, NOW + 2000)


def test_a_session_that_is_revoked_while_it_is_searched_is_not_added() -> None:
    """The search may have read the row before it was revoked, and end after the revocation was read."""
    access = table(identities=(TASK,))
    header, session = made(SESSION, identity="shop", grants=())
    access.replace((), (TASK,), [session.id])
    assert not access.add_session(session)
    assert "not one of this registry" in problem(access, header)
    _, logged_out = made(SESSION, identity="shop", grants=())
    access.forget_session(logged_out.id)
    assert not access.add_session(logged_out)


def test_a_revoked_session_ends_at_once_and_no_other() -> None:
    """One that logs out does not make all connections be identified again."""
    access = table(identities=(TASK,))
    header, others = (made(SESSION, identity="shop", grants=()) for _ in range(2))
    access.add_session(header[1])
    access.add_session(others[1])
    ended, kept = (access.subject_of("10.0.0.9", each[0], now=NOW) for each in (header, others))
    generation = access.generation
    access.replace((), (TASK,), [header[1].id])
    assert (ended.ended, kept.ended, access.generation) == (True, False, generation)


def test_sessions_that_ended_are_forgotten() -> None:
    """Else the sessions of twelve hours would fill the memory of a process."""
    access = table(identities=(TASK,))
    sessions(access)
    access.mark_read(NOW)
    access.expire(NOW + 120)
    assert len(access.contents(NOW).credentials) == 2
    assert access.contents(NOW + 120).credentials == []
    access.expire(NOW + 700)
    assert access.contents(NOW).credentials == []


def test_only_subjects_that_a_change_concerns_end() -> None:
    """Another token, or the hour of the last use, leaves held polls their subject; a new identity ends proven names."""
    header, token = made(name="a")
    _, other = made(name="b")
    sessions_header, session = made(SESSION, identity="shop", grants=(), created_by="AROASHOP:task")
    wide = Identity("wide", "network", "10.0.0.0/8", "machine", ALL)
    access = table(token, session, identities=(TASK, wide))
    kept = access.subject_of("10.0.0.9", header, now=NOW)
    of_session = access.subject_of("10.0.0.9", sessions_header, now=NOW)
    of_network = access.subject_of("10.1.0.1", None, now=NOW)
    assert (of_session.problem, of_network.owner) == ("", "identity:wide")
    access.replace([replace(token, used_at=NOW), other], (TASK, wide), ())
    assert not kept.ended
    assert not of_session.ended
    assert not of_network.ended
    narrow = Identity("narrow", "network", "10.1.0.0/16", "machine", ())
    access.replace([token, other], (TASK, wide, narrow), ())
    assert not kept.ended
    assert not of_session.ended
    assert access.subject_of("10.1.0.1", None, now=NOW).owner == "identity:narrow"
    ended = (of_network.ended, kept.ended)
    access.replace([replace(token, grants=()), other], (TASK, wide, narrow), ())
    assert (*ended, kept.ended, of_session.ended) == (True, False, True, False)
    access.replace([token, other], (wide, narrow), ())
    assert of_session.ended


def test_networks_and_certificates_prove_identities() -> None:
    """The narrowest network counts, and a bad credential falls back to neither."""
    networks = [
        Identity(name, "network", match, "machine", ALL)
        for name, match in (("wide", "10.0.0.0/8"), ("narrow", "10.1.0.0/16"))
    ]
    mesh = Identity("mesh", "spiffe", "spiffe://example.org/shop", "registrar", ALL)
    access = table(identities=(*networks, mesh))
    assert access.subject_of("10.1.0.1", None, now=NOW).name == "network:10.1.0.0/16"
    assert access.subject_of("10.2.0.1", None, now=NOW).owner == "identity:wide"
    assert access.subject_of("192.168.0.1", None, now=NOW).name == ""
    proven = access.subject_of("10.1.0.1", None, [("spiffe", "spiffe://example.org/shop")], now=NOW)
    assert proven.name == "spiffe://example.org/shop"
    assert "form" in problem(access, b"Bearer x", address="10.1.0.1")
    assert "no bearer token" in problem(access, b"Basic dTpw", address="10.1.0.1")


def test_nothing_is_decided_before_the_credentials_are_read() -> None:
    """A process that has read none says that it cannot know, and refuses nobody for good."""
    header, _ = made()
    access = AccessTable()
    assert access.subject_of("10.0.0.9", header, now=NOW).unknown
    assert access.subject_of("10.0.0.9", None, now=NOW).unknown
    sessions_header, session = made(SESSION, identity="shop", grants=())
    access.add_session(session)
    assert access.subject_of("10.0.0.9", sessions_header, now=NOW).unknown, "its identity was not read"


def test_a_steady_connection_is_noted_as_used() -> None:
    """Its credential is judged once; the table asks for another look, so that nobody takes the token for unused."""
    access = table()
    sender = Sender(access, Clock(), "10.0.0.9")
    header, token = made(expires_at=time.time() + 60)
    access.replace([token], (), ())
    assert sender.identify(header)
    assert access.used == {token.id}
    access.used = set()
    sender.identify(header)
    assert access.used == set()
    access.look_again()
    sender.identify(header)
    assert access.used == {token.id}


def test_the_contents_are_restored_without_any_token() -> None:
    """Digests are kept, and make the same subjects after a restart."""
    header, token = made()
    sessions_header, session = made(SESSION, identity="shop", grants=())
    access = table(token, session, identities=(TASK,))
    again = AccessTable()
    again.restore(access.contents(NOW))
    assert (again.ready, again.stale) == (True, True)
    assert problem(again, header) == problem(again, sessions_header) == ""
    assert header.split(b"_", 2)[2].decode() not in repr(access.contents(NOW))


@pytest.mark.parametrize("count", [1, 50])
def test_judging_a_token_takes_microseconds(count: int) -> None:
    """Whatever the number of tokens, a cold check stays far from the cost of a poll."""
    pairs = [made(name=f"t{number}") for number in range(count)]
    access = table(*(token for _, token in pairs))
    header = pairs[-1][0]
    rounds = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(200):
            access.subject_of("10.0.0.9", header, now=NOW)
        rounds.append((time.perf_counter() - began) / 200)
    assert min(rounds) < 20e-6
