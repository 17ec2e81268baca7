"""The RPCs of the service, in a form that answers garbage with a typed error."""

from __future__ import annotations

from typing import Any

import grpc

from flashsd_ray.wire.messages.parsing import tolerant_parser
from flashsd_ray.wire.v1 import captioning_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["Captioning"]

# (the client streams, the server streams) -> how gRPC calls the handler
_KINDS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def add_to_server(servicer: Any, server: Any) -> None:
    """The server answers the service's RPCs with the servicer's methods.

    Unlike the generated function it hands bytes that are no message over as ``Unreadable``: gRPC itself would answer
    them with UNKNOWN and the text of an exception.
    """
    handlers = {
        method.name: _KINDS[method.client_streaming, method.server_streaming](
            getattr(servicer, method.name),
            request_deserializer=tolerant_parser(getattr(pb, method.input_type.name)),
            response_serializer=getattr(pb, method.output_type.name).SerializeToString,
        )
        for method in SERVICE.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))
