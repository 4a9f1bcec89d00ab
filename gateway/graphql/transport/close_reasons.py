"""Close reasons of WebSockets: Strawberry's texts are replaced with texts that say what to do."""

from collections.abc import Mapping
from typing import Final

MALFORMED: Final = "a message must be a JSON object with a type, and with the id that its type needs"

REASONS: Final[Mapping[str, str]] = {
    "Connection initialisation timeout": "connection_init did not come in time: send it right after the handshake",
    "Failed to parse message": MALFORMED,
    "Forbidden": "the token is missing or not valid: send a new one in the payload of connection_init",
    "Invalid connection init payload": "the payload of connection_init must be an object",
    "Subprotocol not acceptable": "use the protocol graphql-transport-ws",
    "Too many initialisation requests": "connection_init came twice: send it once",
    "Unauthorized": "wait for connection_ack before the first operation",
    "WebSocket message must be valid JSON": "a message must be JSON, without duplicate names and deep nesting",
    "WebSocket message type must be text": "a message must be a text frame",
}
"""The gateway's close reason for each close reason of Strawberry.

A close reason has at most 123 bytes (RFC 6455, 5.5).
"""
