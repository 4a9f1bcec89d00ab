"""Hostile strings in each string field of the card service's requests."""

import grpc

from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from tests.integration.card.card_process import RunningCard
from tests.integration.hostile_strings import find_unexpected_errors

SERVICE = card_pb2.DESCRIPTOR.services_by_name["CardService"]


async def test_hostile_string_is_never_an_internal_error(card: RunningCard) -> None:
    async with grpc.aio.insecure_channel(card.settings["card_grpc_listen"]) as channel:
        stub = card_pb2_grpc.CardServiceStub(channel)
        assert await find_unexpected_errors(stub, SERVICE, card.user("alice").metadata) == []
