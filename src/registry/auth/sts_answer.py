"""AWS login, the answer: who STS says that the signer is.

STS answers ``GetCallerIdentity`` in XML, or in JSON where it is asked to. Both are read strictly: an answer that is not
exactly one result is no identity. HashiCorp Vault searched the answer for what it needed, and took a part that the
caller had written (CVE-2020-16250).
"""

import re
from xml.etree import ElementTree as ET

from msgspec import Struct

from registry.auth.aws_login import BadLoginError
from registry.auth.strict_json import parse_strictly

MAX_ANSWER_BYTES = 65_536
"""Bytes of an answer that are read; a real one has fewer than a thousand."""

_NAMESPACE = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_FIELDS = {"Account", "Arn", "UserId"}
_RESPONSE, _RESULT, _METADATA = "GetCallerIdentityResponse", "GetCallerIdentityResult", "ResponseMetadata"
# Names of roles and sessions: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
_ARN = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):sts::(?P<account>[0-9]{12}):"
    r"assumed-role/(?P<role>[A-Za-z0-9_+=,.@-]{1,64})/(?P<session>[A-Za-z0-9_+=,.@-]{2,64})"
)
_USER_ID = re.compile(r"(?P<unique_id>AROA[A-Z0-9]{12,124}):(?P<session>[A-Za-z0-9_+=,.@-]{2,64})")
_ERROR_CODE = re.compile(r"(?:<Code>|\"Code\"\s*:\s*\")([A-Za-z0-9.]{1,64})(?:</Code>|\")")
_THROTTLED = frozenset(
    {"RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException"}
)
_BUSY_STATUSES = frozenset({408, 425, 429})


class BadAnswerError(ValueError):
    """An answer is not the result of ``GetCallerIdentity``, so nothing is known of the caller."""


class NotARoleError(BadLoginError):
    """The caller is not the session of a role of the expected partition; the text says what it is."""


class AwsCaller(Struct, frozen=True):
    """The session of a role, as STS names it.

    Attributes:
        account: the account, twelve digits.
        role: the role's name without its path, which STS does not name.
        session: the session's name: the task's id on ECS, the instance's id on EC2.
        unique_id: the role's id, ``AROA…``, which a role that was deleted and made again does not have.
    """

    account: str
    role: str
    session: str
    unique_id: str

    @property
    def match(self) -> str:
        """The role as identity rules name it: ``111122223333:role-name``."""
        return f"{self.account}:{self.role}"


def read_answer(body: bytes, partition: str) -> AwsCaller:
    """Return the caller that an answer of STS with status 200 names.

    Args:
        body: the answer.
        partition: the name of the partition that was asked.

    Raises:
        BadAnswerError: it is not exactly one result.
        NotARoleError: the caller is something else than a role's session.
    """
    if len(body) > MAX_ANSWER_BYTES:
        raise BadAnswerError(f"the answer of STS exceeds {MAX_ANSWER_BYTES:,} bytes")
    try:
        text = body.decode("ascii").strip()
    except UnicodeDecodeError:
        raise BadAnswerError("the answer of STS is not ASCII") from None
    fields = _json_fields(text) if text.startswith("{") else _xml_fields(text)
    return _caller(fields, partition)


def is_unavailable(status: int, body: bytes) -> bool:
    """Tell whether STS could not decide: the same login may succeed later. Any other status refuses it."""
    return not 400 <= status < 500 or status in _BUSY_STATUSES or error_code(body) in _THROTTLED


def error_code(body: bytes) -> str:
    """Return the code of an error of STS, or an empty string.

    The message beside it is left out: that of ``SignatureDoesNotMatch`` repeats the session token.
    """
    match = _ERROR_CODE.search(body[:MAX_ANSWER_BYTES].decode("ascii", "replace"))
    return match[1] if match else ""


def _caller(fields: dict[str, str], partition: str) -> AwsCaller:
    arn = _ARN.fullmatch(fields["Arn"])
    user = _USER_ID.fullmatch(fields["UserId"])
    if arn is None or user is None:
        raise NotARoleError(
            f"AWS says that the caller is {fields['Arn'][:200]!a}; only sessions of roles may log in: "
            "use a task role or an instance profile"
        )
    if arn["partition"] != partition:
        raise NotARoleError(f"the caller is of the partition {arn['partition']}, and STS of {partition} was asked")
    if arn["account"] != fields["Account"] or arn["session"] != user["session"]:
        raise BadAnswerError("account, ARN and user id of the answer of STS do not agree")
    return AwsCaller(arn["account"], arn["role"], arn["session"], user["unique_id"])


def _json_fields(text: str) -> dict[str, str]:
    try:
        parsed = parse_strictly(text)
    except ValueError:
        raise BadAnswerError("the answer of STS is not JSON, or has a name twice") from None
    match parsed:
        case {"GetCallerIdentityResponse": {"GetCallerIdentityResult": dict() as result, **others}, **outside}:
            pass
        case _:
            raise BadAnswerError(f"the answer of STS is not a {_RESPONSE} with one {_RESULT}")
    if outside or not others.keys() <= {_METADATA}:
        raise BadAnswerError(f"the answer of STS has something beside its {_RESULT}")
    return _checked(list(result.items()))


def _xml_fields(text: str) -> dict[str, str]:
    # Document types, and with them entities, comments and CDATA begin so; STS writes none of them. A comment would cut
    # the text of an element in two, which other readers of signed documents were deceived by.
    if "<!" in text:
        raise BadAnswerError("the answer of STS has a document type, a comment or CDATA")
    try:
        root = ET.fromstring(text)  # noqa: S314  # without a document type there are no entities
    except (ET.ParseError, ValueError):
        raise BadAnswerError("the answer of STS is neither XML nor JSON") from None
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    results = root.findall(_NAMESPACE + _RESULT)
    if root.tag != _NAMESPACE + _RESPONSE or len(results) != 1 or tags.count(_RESULT) != 1:
        raise BadAnswerError(f"the answer of STS has not exactly one {_RESULT} in the namespace of STS")
    if not {element.tag for element in root} <= {_NAMESPACE + _RESULT, _NAMESPACE + _METADATA}:
        raise BadAnswerError(f"the answer of STS has something beside its {_RESULT}")
    pairs: list[tuple[str, object]] = []
    for element in results[0]:
        is_leaf = element.tag.startswith(_NAMESPACE) and not len(element) and not element.attrib
        pairs.append((element.tag.removeprefix(_NAMESPACE), element.text if is_leaf else None))
    return _checked(pairs)


def _checked(pairs: list[tuple[str, object]]) -> dict[str, str]:
    """Return the fields of a result, each there exactly once and a text."""
    fields = {name: value for name, value in pairs if isinstance(value, str)}
    if len(pairs) != len(_FIELDS) or fields.keys() != _FIELDS:
        raise BadAnswerError(f"the result of STS has not exactly {', '.join(sorted(_FIELDS))}, each once")
    return fields
