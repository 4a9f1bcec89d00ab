"""The gateway: the public REST and GraphQL APIs over the gRPC services."""
