"""The partitions of AWS."""

import pytest

from wire.aws_partition import partition_of


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-west-1", "aws"),
        ("cn-northwest-1", "aws-cn"),
        ("us-gov-east-1", "aws-us-gov"),
        ("mx-central-1", "aws"),
        ("us-iso-east-1", None),
        ("us-isob-east-1", None),
        ("eu-isoe-west-1", None),
        ("eusc-de-east-1", None),
        ("eu-west-1.evil.example", None),
        ("eu-west-1/", None),
        ("EU-WEST-1", None),
        ("", None),
    ],
)
def test_partitions_are_known_by_their_regions(region: str, partition: str | None) -> None:
    """Isolated partitions and the European sovereign cloud have endpoints of other names."""
    named = partition_of(region)
    assert (named.name if named else None) == partition
