"""Limit on open streams per caller."""

from gateway.http.stream_limits import StreamLimiter
from tests.conftest import Keys


async def test_stream_above_the_limit_is_rejected_until_one_is_released(keys: Keys) -> None:
    verifier = keys.verifier()
    alice, bob = await verifier.verify(keys.user("alice")), await verifier.verify(keys.user("bob"))
    limiter = StreamLimiter(1)
    release = limiter.acquire(alice)
    assert release is not None
    assert limiter.acquire(alice) is None
    assert limiter.acquire(bob) is not None
    release()
    assert limiter.acquire(alice) is not None
