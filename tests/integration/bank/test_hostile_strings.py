"""Strings of requests that no database column takes."""

from protos.wallet.bank.v1 import bank_pb2
from tests.integration.bank.harness import Caller, RunningBank
from tests.integration.hostile_strings import unexpected_answers

SERVICE = bank_pb2.DESCRIPTOR.services_by_name["BankService"]


async def test_hostile_string_is_never_an_internal_error(bank: RunningBank, alice: Caller) -> None:
    assert await unexpected_answers(bank.stub, SERVICE, alice.metadata) == []


async def test_hostile_string_of_a_service_is_never_an_internal_error(bank: RunningBank) -> None:
    assert await unexpected_answers(bank.stub, SERVICE, bank.service("analytics").metadata) == []
    assert await unexpected_answers(bank.stub, SERVICE, bank.service("card").metadata) == []
