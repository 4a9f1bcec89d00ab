from collections.abc import Sequence

from kit.rpc.batches import call_each, call_in_batches
from wallet.errors import AccountNotFound, Unavailable, WalletError

MISSING = AccountNotFound("missing")


class Service:
    """Returns keys in upper case.

    Attributes:
        calls: keys of each call.
    """

    def __init__(self, *, is_older: bool = False, outage: WalletError | None = None) -> None:
        self.calls: list[str | Sequence[str]] = []
        self._is_older = is_older
        self._outage = outage

    async def call(self, key: str) -> str:
        self.calls.append(key)
        if key == "missing":
            raise MISSING
        return key.upper()

    async def call_batch(self, keys: Sequence[str]) -> list[str | WalletError] | None:
        self.calls.append(keys)
        if self._outage is not None:
            raise self._outage
        return None if self._is_older else [MISSING if key == "missing" else key.upper() for key in keys]


async def test_each_different_key_is_one_call() -> None:
    service = Service()
    assert await call_each(service.call, ["a", "missing", "a"]) == {"a": "A", "missing": MISSING}
    assert service.calls == ["a", "missing"]


async def test_each_batch_is_one_call() -> None:
    service = Service()
    results = await call_in_batches(service.call, service.call_batch, [["a", "missing"], ["b", "c"], ["d"]])
    assert results == {"a": "A", "missing": MISSING, "b": "B", "c": "C", "d": "D"}
    assert service.calls == [["a", "missing"], ["b", "c"], "d"]


async def test_service_without_batches_gets_a_call_for_each_key() -> None:
    service = Service(is_older=True)
    assert await call_in_batches(service.call, service.call_batch, [["a", "b"]]) == {"a": "A", "b": "B"}
    assert service.calls == [["a", "b"], "a", "b"]


async def test_error_of_a_call_is_the_error_of_its_keys() -> None:
    service = Service(outage=Unavailable("the service"))
    results = await call_in_batches(service.call, service.call_batch, [["a", "b"], ["c"]])
    assert results == {"a": Unavailable("the service"), "b": Unavailable("the service"), "c": "C"}
