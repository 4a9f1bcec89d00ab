"""Names of the Kafka topics and event types of `asyncapi.yaml`, for producers and consumers."""

from typing import Final

OPERATIONS_TOPIC: Final = "wallet.operations"
"""Every transfer and top-up of the ledger."""
DEAD_LETTER_TOPIC: Final = "wallet.operations.dlq"
"""Messages of the operations topic that the consumer cannot decode."""

TRANSFER_COMPLETED: Final = "wallet.transfer.completed"
"""`ce_type` of a `TransferEvent`."""
TOP_UP_COMPLETED: Final = "wallet.topup.completed"
"""`ce_type` of a `TopUpEvent`."""
