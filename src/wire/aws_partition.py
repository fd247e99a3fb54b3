"""The partitions of AWS: a region's partition has its own accounts, and its own names of endpoints."""

import re

from msgspec import Struct

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}")


class Partition(Struct, frozen=True):
    """A partition of AWS, whose accounts and endpoints are its own.

    Attributes:
        name: the name in its ARNs.
        suffix: the end of its endpoints' names.
    """

    name: str
    suffix: str


def partition_of(region: str) -> Partition | None:
    """Return the partition of a region, or None where AWS login cannot be used.

    The isolated partitions and the European sovereign cloud have endpoints of other names, and are not supported.
    """
    if not _REGION.fullmatch(region) or "-iso" in region:
        return None
    if region.startswith("cn-"):
        return Partition("aws-cn", "amazonaws.com.cn")
    return Partition("aws-us-gov" if region.startswith("us-gov-") else "aws", "amazonaws.com")
