"""The application over gRPC: `proto/llm_service.proto`, translated to the routes' JSON and back."""

from deployments.channel.frames import MAX_PAYLOAD

ENVIRONMENT = {
    # Ray's servers would take 2 GiB into memory before anybody knows who sends it. It is the limit for answers, too.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_PAYLOAD),
    # Calls of one client's connection at once; what is more waits in the client.
    "RAY_SERVE_HAPROXY_H2_FE_MAX_CONCURRENT_STREAMS": "1000",
}
"""Of all processes that have gRPC servers of Ray's, or HAProxy."""
