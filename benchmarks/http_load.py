"""Load generator of HTTP requests: `python -m benchmarks.http_load`, run by `load_generator.start_generator`."""

import sys
from collections.abc import Sequence

import orjson

from benchmarks.http1_client import HttpLoad, request_repeatedly
from benchmarks.load_generator import Call, LoadWindow, run_generator


def main() -> None:
    """Read an `HttpLoad` from standard input and generate it."""
    load = HttpLoad(**orjson.loads(sys.stdin.readline()))

    async def send_requests(window: LoadWindow) -> Sequence[Call]:
        return await request_repeatedly(load, window.end)

    run_generator(send_requests)


if __name__ == "__main__":
    main()
