"""Subclasses of uvicorn's server and protocols, which are not public API.

They add limits that uvicorn does not have: of connections, the time in each stage of a connection, the parts of a
request, the frames of a WebSocket, and the work in one turn of the event loop (ADR 33). They refuse requests that RFC
9112 calls invalid, and ignore upgrades to other protocols than WebSocket (ADR 34).
`tests/unit/kit/http/test_uvicorn_internals.py` fails if uvicorn no longer has or calls an overridden method.
"""
