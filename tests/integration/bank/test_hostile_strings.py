"""Hostile strings in each string field of the bank's requests."""

from protos.wallet.bank.v1 import bank_pb2
from tests.integration.bank.harness import Caller, RunningBank
from tests.integration.hostile_strings import find_unexpected_errors

SERVICE = bank_pb2.DESCRIPTOR.services_by_name["BankService"]


async def test_hostile_string_from_a_user_is_never_an_internal_error(bank: RunningBank, alice: Caller) -> None:
    assert await find_unexpected_errors(bank.stub, SERVICE, alice.metadata) == []


async def test_hostile_string_from_a_service_is_never_an_internal_error(bank: RunningBank) -> None:
    assert await find_unexpected_errors(bank.stub, SERVICE, bank.service("analytics").metadata) == []
    assert await find_unexpected_errors(bank.stub, SERVICE, bank.service("card").metadata) == []
