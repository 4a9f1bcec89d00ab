"""GraphQL: schema federation, execution, protection, and transport over HTTP, WebSocket and server-sent events."""
