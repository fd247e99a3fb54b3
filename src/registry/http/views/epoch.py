"""Times in the JSON documents of the native API."""

from typing import Annotated

from msgspec import Meta

Epoch = Annotated[float, Meta(description="Seconds since 1970 on the database's clock.")]
