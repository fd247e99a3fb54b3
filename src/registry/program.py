"""The version of this program, read once: a request must not open a file, which fails while descriptors are scarce."""

from importlib.metadata import version

VERSION = version("headcount")
"""The version of the distribution that is installed."""
