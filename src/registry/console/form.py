"""Forms that people send from pages: their fields, read as strictly as the API's documents, and their senders."""

from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Request
from fastapi.responses import RedirectResponse
from msgspec import Meta, Struct
from msgspec.structs import replace

from registry.auth.principal import Principal
from registry.errors import InvalidError
from registry.http.dependencies import Actor
from registry.http.parameters import read_form
from wire.validation_error import described

Sent = TypeVar("Sent", bound=Struct)

_MAX_FIELDS = 20
_PAGES = "/ui/"


class Signed(Struct, frozen=True):
    """The name of the person who sends a form, and the page to go back to."""

    who: Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9 ._@:+/-]*$(?!\n)")] = ""
    back: Annotated[str, Meta(max_length=2048)] = "/ui/services"


class Fields:
    """The fields of a form that were filled in.

    Args:
        fields: by name.
    """

    def __init__(self, fields: dict[str, str]) -> None:
        # A field that was left empty was not filled in.
        self._fields = {name: value.strip() for name, value in fields.items() if value.strip()}

    def read(self, document: type[Sent]) -> Sent:
        """Return the fields as a document.

        Raises:
            InvalidError: a value is of the wrong type or out of range.
        """
        values: dict[str, Any] = {
            name: self._fields[name] for name in document.__struct_fields__ if name in self._fields
        }
        try:
            return msgspec.convert(values, document, strict=False)
        except msgspec.ValidationError as error:
            message, pointer = described(error, document)
            raise InvalidError(message, f"form:{pointer.removeprefix('$').removeprefix('.')}") from None


class Form(Fields):
    """The fields that were sent, and the principal that sent them.

    Args:
        fields: by name.
        sender: the principal of the request; its name in the history has the one that the form gives.
    """

    def __init__(self, fields: dict[str, str], sender: Principal) -> None:
        super().__init__(fields)
        self._signed = self.read(Signed)
        self.actor = replace(sender, actor=self._signed.who)

    def done(self, what: str) -> RedirectResponse:
        """Return to the page that the form was on, which then says what was done."""
        back = self._signed.back
        if not back.startswith(_PAGES):
            back = "/ui/services"
        back, _, query = back.partition("#")[0].partition("?")
        kept = [f"{pair}&" for pair in query.split("&") if pair and not pair.startswith("done=")]
        return RedirectResponse(f"{back}?{''.join(kept)}done={what}", 303)


async def fields_of(request: Request) -> dict[str, str]:
    """Return the fields of the form that a request sends, by name.

    Raises:
        InvalidError: it is no form.
    """
    try:
        return read_form(await request.body(), _MAX_FIELDS)
    except ValueError:
        raise InvalidError("the form cannot be read; send it from the console's own page", "form") from None


async def _form(request: Request, sender: Actor) -> Form:
    return Form(await fields_of(request), sender)


Filled = Annotated[Form, Depends(_form)]
