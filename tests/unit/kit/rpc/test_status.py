"""Conversion of errors to gRPC statuses and back."""

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata
from grpc_status import rpc_status

from kit.rpc.status import DOMAIN, code_name, error_from_rpc, error_from_status, error_to_status, fit_to_call
from protos.wallet.bank.v1 import bank_pb2
from protos.wallet.identity.v1 import identity_pb2
from wallet.errors import (
    TRY_AGAIN,
    TRY_AGAIN_WITH_KEY,
    AccountNotFound,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    RateLimited,
    ResourceExhausted,
    TooManyAttempts,
    TopUpDeclinesExceeded,
    Unauthenticated,
    Unavailable,
    WalletError,
)


def detail(status: status_pb2.Status, kind: type[error_details_pb2.ErrorInfo]) -> error_details_pb2.ErrorInfo:
    unpacked = kind()
    assert any(detail.Unpack(unpacked) for detail in status.details)
    return unpacked


def failed_call(code: grpc.StatusCode, status: status_pb2.Status | None = None) -> AioRpcError:
    trailers = () if status is None else rpc_status.to_status(status).trailing_metadata or ()
    message = "" if status is None else status.message
    return AioRpcError(code, Metadata(), Metadata(*trailers), message)


class TestStatus:
    def test_status_has_reason_and_metadata(self) -> None:
        status = error_to_status(AccountNotFound("a1"))
        info = detail(status, error_details_pb2.ErrorInfo)
        assert status.code == code_pb2.NOT_FOUND
        assert (info.reason, info.domain, dict(info.metadata)) == ("ACCOUNT_NOT_FOUND", DOMAIN, {"account_id": "a1"})

    def test_status_has_each_invalid_field(self) -> None:
        bad_request = error_details_pb2.BadRequest()
        status = error_to_status(InvalidInput.for_field("amount", "must be positive"))
        assert any(detail.Unpack(bad_request) for detail in status.details)
        (violation,) = bad_request.field_violations
        assert (violation.field, violation.description) == ("amount", "must be positive")

    @pytest.mark.parametrize(
        ("name", "proto_name"),
        [
            ("amount", "amount"),
            ("senderId", "sender_id"),
            ("card.expiryYear", "card.expiry_year"),
            ("ids[2]", "ids[2]"),
        ],
    )
    def test_invalid_fields_have_the_names_of_the_protos(self, name: str, proto_name: str) -> None:
        error, bad_request = InvalidInput.for_field(name, "must be positive"), error_details_pb2.BadRequest()
        status = error_to_status(error)
        assert any(detail.Unpack(bad_request) for detail in status.details)
        assert [each.field for each in bad_request.field_violations] == [proto_name]
        assert status.message == f"{proto_name}: must be positive"
        assert error_from_status(status) == error

    def test_field_names_of_earlier_servers_stay(self) -> None:
        status = error_to_status(InvalidInput.for_field("senderId", "must be a UUID"))
        for detail in status.details:
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(bad_request):
                bad_request.field_violations[0].field = "senderId"
                detail.Pack(bad_request)
        assert error_from_status(status) == InvalidInput.for_field("senderId", "must be a UUID")

    @pytest.mark.parametrize(
        ("error", "seconds"),
        [
            (ResourceExhausted(), 1),
            (TooManyAttempts("30"), 30),
            (RateLimited("requests", "7"), 7),
            (TopUpDeclinesExceeded("60"), 60),
        ],
    )
    def test_status_of_an_exceeded_limit_has_a_retry_delay(self, error: WalletError, seconds: int) -> None:
        hint = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(hint) for detail in error_to_status(error).details)
        assert hint.retry_delay.seconds == seconds

    def test_status_of_another_domain_is_an_internal_error(self) -> None:
        foreign = status_pb2.Status(code=code_pb2.NOT_FOUND, message="a secret of another user")
        info = error_details_pb2.ErrorInfo(reason="ACCOUNT_NOT_FOUND", domain="example.com")
        foreign.details.add().Pack(info)
        assert error_from_status(foreign) == error_from_status(status_pb2.Status()) == InternalError()

    def test_unknown_reason_is_an_internal_error(self) -> None:
        newer = status_pb2.Status()
        newer.details.add().Pack(error_details_pb2.ErrorInfo(reason="NEVER_HEARD_OF", domain=DOMAIN))
        assert error_from_status(newer) == InternalError()

    def test_unknown_details_are_ignored(self) -> None:
        status = status_pb2.Status()
        status.details.add().Pack(error_details_pb2.RetryInfo())
        status.details.extend(error_to_status(AccountNotFound("a1")).details)
        assert error_from_status(status) == AccountNotFound("a1")

    def test_code_has_its_canonical_name(self) -> None:
        assert code_name(status_pb2.Status()) == "OK"
        assert code_name(error_to_status(AccountNotFound("a1"))) == "NOT_FOUND"


class TestFailedCall:
    def test_failed_call_becomes_the_error_of_the_service(self) -> None:
        error = failed_call(grpc.StatusCode.NOT_FOUND, error_to_status(AccountNotFound("a1")))
        assert error_from_rpc(error, "the bank") == AccountNotFound("a1")

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (grpc.StatusCode.UNAVAILABLE, Unavailable("the bank")),
            (grpc.StatusCode.CANCELLED, Unavailable("the bank")),
            (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded("the bank")),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted()),
            (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated()),
            (grpc.StatusCode.UNIMPLEMENTED, InternalError()),
            (grpc.StatusCode.UNKNOWN, InternalError()),
        ],
        ids=str,
    )
    def test_failed_call_without_details_becomes_the_error_of_its_code(
        self, code: grpc.StatusCode, expected: WalletError
    ) -> None:
        assert error_from_rpc(failed_call(code), "the bank") == expected


class TestNextStep:
    @pytest.mark.parametrize(
        ("request_", "step"),
        [
            (bank_pb2.TransferMoneyRequest(), TRY_AGAIN_WITH_KEY),
            (bank_pb2.BatchTransferMoneyRequest(), TRY_AGAIN_WITH_KEY),
            (bank_pb2.GetTransferRequest(), TRY_AGAIN),
            (identity_pb2.AuthenticateRequest(), TRY_AGAIN),
            (b"", TRY_AGAIN),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_next_step_names_the_idempotency_key_if_the_request_has_one(self, request_: object, step: str) -> None:
        for error in (Unavailable("the bank", "old"), DeadlineExceeded("the bank", "old")):
            assert str(fit_to_call(error, request_)).endswith(f"; {step}")

    def test_other_errors_are_unchanged(self) -> None:
        assert fit_to_call(AccountNotFound("a1"), bank_pb2.GetTransferRequest()) == AccountNotFound("a1")

    def test_error_of_an_older_service_has_a_next_step(self) -> None:
        assert str(Unavailable.from_metadata({"what": "the bank"})) == "the bank is not available now; try again"
