"""The entity tag of a page, by which the browser learns in 304 that nothing has changed."""

import re
from hashlib import blake2b

_WORDS_OF_TIMES = re.compile(r"(<time [^>]*>)[^<]*")
"""A time on a page, and its words. Words that somebody sent contain no tag, because they are escaped."""


def page_tag(text: str) -> str:
    """Return the entity tag of a page, which is the same while only the words of its times differ.

    The browser counts these on by itself: "12 s ago" becomes "14 s ago" without a new page. The tag is a weak one for
    that reason (RFC 9110, 8.8.1).
    """
    digest = blake2b(_WORDS_OF_TIMES.sub(r"\1", text).encode(), digest_size=12)
    return f'W/"{digest.hexdigest()}"'
