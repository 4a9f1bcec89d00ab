import jwt
import pytest

from benchmarks.accounts import OWNERS, owner_id
from benchmarks.environment import UNLIMITED_SYSTEM, BenchEnvironment
from gateway.settings import Settings


class BrokenEnvironment(BenchEnvironment):
    """Environment that starts one process, then fails."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped: list[str] = []

    async def _start(self) -> None:
        self._exit_stack.callback(self.stopped.append, "first process")
        raise OSError("port in use")


async def test_temporary_folder_is_removed_on_exit() -> None:
    async with BenchEnvironment() as environment:
        assert environment.folder.is_dir()
    assert not environment.folder.exists()


async def test_failed_start_stops_the_started_processes() -> None:
    environment = BrokenEnvironment()
    with pytest.raises(OSError, match="port in use"):
        await environment.__aenter__()
    assert environment.stopped == ["first process"]
    assert not environment.folder.exists()


def test_one_address_may_open_as_many_connections_as_the_figures() -> None:
    settings = Settings.model_validate(
        {"auth_issuer": "issuer", "auth_jwks": "https://issuer.example/jwks"}
        | {name.lower(): value for name, value in UNLIMITED_SYSTEM.items() if name.lower() in Settings.model_fields}
    )
    assert settings.connection_limits().per_address >= 1_000  # the benchmark `fanout` has 1,000 WebSockets


async def test_customer_tokens_are_in_the_order_of_the_owners() -> None:
    async with BenchEnvironment() as environment:
        tokens = environment.tokens.customers
    subjects = [jwt.decode(token, options={"verify_signature": False})["sub"] for token in tokens]
    assert subjects == [owner_id(number) for number in range(OWNERS)]
