"""A gRPC client of a few lines on the registrar's HTTP/2, which also talks to servers that are not ours."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from registrar.checks.http2 import unary

_PREFIX = 5
"""Bytes before each message: whether it is compressed, and its length."""


@dataclass(frozen=True)
class GrpcAnswer:
    """The end of a call.

    Attributes:
        status: the grpc-status; empty where there was none.
        message: the grpc-message.
        headers: headers and trailers.
        messages: how many messages came.
    """

    status: str
    message: str
    headers: Mapping[str, str]
    messages: int


def grpc_call(port: int, host: str, path: str, timeout: str = "") -> GrpcAnswer:
    """Make a call with an empty message to a port on loopback."""
    return asyncio.run(_call(port, host, path, timeout))


async def _call(port: int, host: str, path: str, timeout: str) -> GrpcAnswer:
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", host),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *([("grpc-timeout", timeout)] if timeout else []),
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        answer = await asyncio.wait_for(unary(reader, writer, fields, bytes(_PREFIX)), 5)
    finally:
        writer.close()
    fields_of = answer.fields
    messages = len(answer.body) // _PREFIX
    return GrpcAnswer(fields_of.get("grpc-status", ""), fields_of.get("grpc-message", ""), fields_of, messages)
