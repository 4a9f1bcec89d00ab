"""Wait for the end of a process that is stopping."""

from stack.process import Child


async def assert_stops(child: Child) -> None:
    """Wait for the end of the process, and assert that its shutdown was complete.

    The exit status alone does not show this: a process whose shutdown hangs logs `stop timed out`, and its status is 0.
    """
    assert await child.wait() == 0
    assert not [line for line in child.last_lines if "stop timed out" in line]
