"""Transfers in batches over the REST API."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import gevent

from loadtests import rest
from loadtests.choices import TransferChoice
from loadtests.history.calls import Answer, LedgerRequest, NoEffect, UnknownOutcome
from loadtests.plan import Customer
from loadtests.scenarios.users import ATTEMPTS, WalletUser, json_object, retry_backoff, transfer_request

SIZE: Final = 20
"""Transfers of a batch, without duplicates and contradictions."""

_NAME: Final = "REST transfer of a batch"


class BatchTransfers(WalletUser):
    """User that transfers money to many customers at once.

    A batch sometimes has a transfer twice, or another amount with the key of a transfer. Transfers with an unknown
    outcome are sent again, in a smaller batch.
    """

    def act(self) -> None:
        """Make one batch of transfers from one account."""
        choices = [self.choices.next_transfer() for _ in range(SIZE)]
        sender = choices[0].sender
        pending = list(self._requests(sender, choices))
        backoff = retry_backoff()
        for _ in range(ATTEMPTS):
            answers = self._send(pending, sender)
            pending = [
                request
                for request, answer in zip(pending, answers, strict=True)
                if isinstance(answer, UnknownOutcome | NoEffect)
            ]
            if not pending:
                return
            gevent.sleep(backoff.next_delay())

    def _requests(self, sender: Customer, choices: Sequence[TransferChoice]) -> Iterator[LedgerRequest]:
        for choice in choices:
            recipient = choice.sender if choice.recipient == sender else choice.recipient
            request = transfer_request(choice, sender, recipient)
            yield request
            if choice.is_duplicated:
                yield request
            if choice.is_contradicted:
                yield replace(request, body=replace(request.body, amount=choice.amount + 1))

    def _send(self, requests: Sequence[LedgerRequest], sender: Customer) -> Sequence[Answer | None]:
        headers = {"Authorization": f"Bearer {sender.token}", "Accept": "application/json"}
        body = {"transfers": [rest.batch_item_for(each) for each in requests]}

        def send() -> list[Answer | None]:
            sending = self.client.request(
                "POST", "/transfers/batch", name="REST batch", headers=headers, json=body, catch_response=True
            )
            with sending as response:
                answers = rest.parse_batch(
                    requests, response.status_code, json_object(response), response.headers or {}
                )
                failures = [each.reason for each in answers if isinstance(each, UnknownOutcome | NoEffect)]
                if failures:
                    response.failure(failures[0])
                else:
                    response.success()
            return list(answers)

        return self.record_all(_NAME, send, requests)
