"""Answers of AWS STS: who the caller is, or why nothing is known of it."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.auth.sts_answer import (
    AwsCaller,
    BadAnswerError,
    NotARoleError,
    error_code,
    is_unavailable,
    read_answer,
)

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
FIELDS = {
    "Arn": "arn:aws:sts::111122223333:assumed-role/shop-task/0123456789abcdef",
    "UserId": "AROAQWERTYUIOPASDFGHJ:0123456789abcdef",
    "Account": "111122223333",
}
SHOP = AwsCaller("111122223333", "shop-task", "0123456789abcdef", "AROAQWERTYUIOPASDFGHJ")
RESULT = "".join(f"<{name}>{value}</{name}>" for name, value in FIELDS.items())
METADATA = "<ResponseMetadata><RequestId>01234567-89ab</RequestId></ResponseMetadata>"


def xml(inside: str = f"<GetCallerIdentityResult>{RESULT}</GetCallerIdentityResult>{METADATA}") -> bytes:
    """Return an answer in XML."""
    return f'<GetCallerIdentityResponse xmlns="{NAMESPACE}">{inside}</GetCallerIdentityResponse>'.encode()


def fields(**changed: str) -> bytes:
    """Return an answer in JSON whose result has other values."""
    result = FIELDS | changed
    response = {"GetCallerIdentityResult": result, "ResponseMetadata": {"RequestId": "01234567-89ab"}}
    return json.dumps({"GetCallerIdentityResponse": response}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        xml(),
        b'<?xml version="1.0" encoding="UTF-8"?>\n' + xml(),
        b"\n  " + xml().replace(b"><", b">\n  <") + b"\n",
        xml(f"{METADATA}<GetCallerIdentityResult>{RESULT}</GetCallerIdentityResult>"),
        xml(f"<GetCallerIdentityResult>{RESULT}</GetCallerIdentityResult>"),
        fields(),
    ],
)
def test_a_result_names_account_role_session_and_id(answer: bytes) -> None:
    """In XML or JSON, with and without line breaks."""
    assert read_answer(answer, "aws") == SHOP
    assert SHOP.match == "111122223333:shop-task"


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov"])
def test_other_partitions_have_arns_of_their_own(partition: str) -> None:
    """An account of one partition is not the account of the same number in another one."""
    answer = fields(Arn=FIELDS["Arn"].replace("arn:aws:", f"arn:{partition}:"))
    assert read_answer(answer, partition) == SHOP
    with pytest.raises(NotARoleError, match=f"of the partition {partition}"):
        read_answer(answer, "aws")


@pytest.mark.parametrize(
    ("arn", "user"),
    [
        ("arn:aws:iam::111122223333:user/ann", "AIDAQWERTYUIOPASDFGHJ"),
        ("arn:aws:iam::111122223333:root", "111122223333"),
        ("arn:aws:sts::111122223333:federated-user/ann", "111122223333:ann"),
        ("arn:aws:iam::111122223333:role/shop-task", FIELDS["UserId"]),
        ("arn:aws:iam::111122223333:assumed-role/shop-task/0123456789abcdef", FIELDS["UserId"]),
        ("arn:aws:sts:eu-west-1:111122223333:assumed-role/shop-task/0123456789abcdef", FIELDS["UserId"]),
        ("arn:aws-iso:sts::111122223333:assumed-role/shop-task/0123456789abcdef", FIELDS["UserId"]),
        ("arn:aws:sts::111122223333:assumed-role/a/shop-task/0123456789abcdef", FIELDS["UserId"]),
        ("arn:aws:sts::111122223333:assumed-role/shop-task", FIELDS["UserId"]),
        ("arn:aws:sts::111122223333:assumed-role/shop-task/0123456789abcdef\n", FIELDS["UserId"]),
        ("arn:aws:sts::11112222333:assumed-role/shop-task/0123456789abcdef", FIELDS["UserId"]),
        ("arn:aws:sts::1111\u06622223333:assumed-role/shop-task/0123456789abcdef", FIELDS["UserId"]),
        (FIELDS["Arn"], "AIDAQWERTYUIOPASDFGHJ:0123456789abcdef"),
        (FIELDS["Arn"], "AROAQWERTYUIOPASDFGHJ"),
    ],
)
def test_only_the_session_of_a_role_may_log_in(arn: str, user: str) -> None:
    """An IAM user has long-lived keys, the root user is nobody's workload."""
    with pytest.raises(NotARoleError, match="only sessions of roles"):
        read_answer(fields(Arn=arn, UserId=user), "aws")


@pytest.mark.parametrize(
    "changed",
    [{"Account": "999988887777"}, {"UserId": "AROAQWERTYUIOPASDFGHJ:ffffffff"}, {"Account": ""}],
)
def test_fields_that_do_not_agree_are_no_identity(changed: dict[str, str]) -> None:
    """Account and session are in two fields each."""
    with pytest.raises(BadAnswerError, match="do not agree"):
        read_answer(fields(**changed), "aws")


OTHER = RESULT.replace("111122223333", "999988887777")
WHOLE = f"<GetCallerIdentityResult>{RESULT}</GetCallerIdentityResult>"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>sign in</html>",
        b"null",
        b"{}",
        xml(""),
        xml(METADATA),
        # Two results, beside each other or one in the other.
        xml(WHOLE + WHOLE),
        xml(WHOLE + WHOLE.replace("111122223333", "999988887777")),
        xml(WHOLE + f"<ResponseMetadata>{WHOLE}</ResponseMetadata>"),
        xml(f"<GetCallerIdentityResult>{RESULT}{WHOLE}</GetCallerIdentityResult>"),
        xml(f'<GetCallerIdentityResult xmlns="urn:x">{OTHER}</GetCallerIdentityResult>{WHOLE}'),
        xml(f"<GetCallerIdentityResult>{RESULT}{RESULT}</GetCallerIdentityResult>"),
        xml(f"<GetCallerIdentityResult>{RESULT}<Arn>a</Arn></GetCallerIdentityResult>"),
        xml(f"<GetCallerIdentityResult>{RESULT.partition('<UserId>')[0]}</GetCallerIdentityResult>"),
        # Another namespace, or none.
        xml().replace(b"2011-06-15", b"2011-06-16"),
        xml().replace(b" xmlns=", b" a="),
        xml(WHOLE.replace("<Arn>", '<Arn xmlns="urn:x">')),
        # What Vault was made to read: the caller's words come back in the answer of another request.
        f"<GetAccessKeyInfoResponse>{WHOLE}</GetAccessKeyInfoResponse>".encode(),
        f"<ErrorResponse><Error><Message>{WHOLE}</Message></Error></ErrorResponse>".encode(),
        json.dumps({"message": xml().decode()}).encode(),
        # Document types, entities, comments, CDATA.
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + xml(),
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd">' + xml(),
        xml(WHOLE.replace("assumed-role", "assumed<!-- -->-role")),
        xml(WHOLE.replace("<Account>", "<Account><![CDATA[").replace("</Account>", "]]></Account>")),
        # Elements in a text, attributes, something before and after.
        xml(WHOLE.replace("assumed-role", "assumed<b/>-role")),
        xml(WHOLE.replace("<Arn>", '<Arn a="b">')),
        xml(WHOLE.replace("<Account>", "<Account>&lol;")),
        b"x" + xml(),
        xml() + b"x",
        xml() + xml(),
        xml().decode().encode("utf-16"),
        xml().replace(b"shop-task", "sh\u00f6p".encode()),
        xml() + b" " * 65_536,
        b"<a>" * 20_000,
        # JSON that says two things, or another.
        fields().replace(b'"Arn"', b'"Account"'),
        fields().replace(b'{"Arn"', b'{"Account": "999988887777", "Arn"'),
        fields()[:-1] + b', "GetCallerIdentityResponse": {}}',
        fields()[:-1] + b', "Error": {}}',
        fields().replace(b'"ResponseMetadata"', b'"Error"'),
        fields().replace(b'"111122223333"', b"111122223333"),
        fields().replace(b'{"Arn"', b'{"Extra": "a", "Arn"'),
        b"[" + fields() + b"]",
        b'{"a":' * 10_000,
    ],
)
def test_what_is_not_exactly_one_result_is_no_identity(answer: bytes) -> None:
    """Nothing is searched for: the answer has the form of the documentation, or it says nothing."""
    with pytest.raises(BadAnswerError):
        read_answer(answer, "aws")


@given(st.binary(max_size=400))
@example(b"\xef\xbb\xbf" + xml())
def test_bytes_are_no_identity(answer: bytes) -> None:
    """No error but those that the caller handles."""
    with pytest.raises(BadAnswerError):
        read_answer(answer, "aws")
    assert len(error_code(answer)) <= 64


@given(
    st.sampled_from([xml(), fields()]),
    st.integers(min_value=0, max_value=2_000),
    st.binary(max_size=4),
    st.integers(min_value=0, max_value=8),
)
def test_a_mangled_answer_is_another_caller_at_most_where_its_letters_say_so(
    answer: bytes, place: int, letters: bytes, cut: int
) -> None:
    """Bytes that are lost or changed on the way never give a caller whose fields are not in the answer."""
    place %= len(answer)
    mangled = answer[:place] + letters + answer[place + cut :]
    try:
        caller = read_answer(mangled, "aws")
    except (BadAnswerError, NotARoleError):
        return
    assert f"arn:aws:sts::{caller.account}:assumed-role/{caller.role}/{caller.session}".encode() in mangled
    assert f"{caller.unique_id}:{caller.session}".encode() in mangled


def error(code: str) -> bytes:
    """Return an error as STS writes it."""
    return f"<ErrorResponse><Error><Code>{code}</Code><Message>a token</Message></Error></ErrorResponse>".encode()


@pytest.mark.parametrize(
    ("status", "body", "unavailable"),
    [
        (403, error("InvalidClientTokenId"), False),
        (403, error("SignatureDoesNotMatch"), False),
        (400, b"", False),
        (400, error("Throttling"), True),
        (400, b'{"Error": {"Code": "Throttling"}}', True),
        (403, error("RequestLimitExceeded"), True),
        (408, b"", True),
        (429, b"", True),
        (500, b"", True),
        (503, error("SignatureDoesNotMatch"), True),
        (302, b"", True),
        (204, b"", True),
    ],
)
def test_a_refusal_is_not_an_outage(status: int, body: bytes, *, unavailable: bool) -> None:
    """A refused workload needs other keys; one that met an outage tries again. Redirects are followed by nobody."""
    assert is_unavailable(status, body) is unavailable


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (error("ExpiredToken"), "ExpiredToken"),
        (b'{"Error":{"Code":"ExpiredToken","Message":"a token"}}', "ExpiredToken"),
        (error("a token"), ""),
        (error("a" * 65), ""),
        (b"\xff<Code>Throttling</Code>", "Throttling"),
        (b"", ""),
    ],
)
def test_the_code_of_an_error_is_all_that_is_repeated(body: bytes, code: str) -> None:
    """The message of SignatureDoesNotMatch has the session token in it."""
    assert error_code(body) == code


def test_what_is_behind_the_limit_is_not_searched() -> None:
    """The rest of an endless answer is not searched."""
    assert error_code(b" " * 70_000 + error("Throttling")) == ""
