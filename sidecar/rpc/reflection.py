"""Server reflection, v1 and v1alpha: the library's answers, which know methods by their names, too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from sidecar.rpc.auth import Call, Context, parse

NAME = reflection.SERVICE_NAME
V1_NAME = NAME.replace("v1alpha", "v1")
"""The same messages under another name. It is not listed, since the library has no descriptor of it to show."""


class _Pool:
    """The default pool. grpcurl and ghz ask for the file of a method, which that one does not find."""

    _pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, name: str) -> FileDescriptor:  # noqa: N802
        """Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(name)
        except KeyError:
            return self._pool.FindMethodByName(name).containing_service.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def answering(names: Sequence[str]) -> Call:
    """The answers about these services, as the guard takes them: it asks for the token here, too."""
    servicer = reflection.aio.ReflectionServicer(names, pool=_Pool())

    async def requests(context: Context) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        while (raw := await context.read()) is not grpc.aio.EOF:
            yield parse(reflection_pb2.ServerReflectionRequest, raw)

    async def call(context: Context) -> None:
        async for response in servicer.ServerReflectionInfo(requests(context), context):
            await context.write(response.SerializeToString())

    return call
