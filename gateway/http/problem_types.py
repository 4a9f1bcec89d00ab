"""Problem types of RFC 9457: the title of each one, and the page that `type` refers to.

One table describes all types. The pages under `/problems`, `docs/reference/problems.md` and the titles of the responses
come from it.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

PATH: Final = "/problems"

UNTYPED: Final = "about:blank"
"""RFC 9457's `type` of a problem that has no type of its own."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type of problem.

    Attributes:
        code: stable machine name, as in the problem's `code`.
        status: HTTP status.
        title: name of the problem for people, the same in each response.
        meaning: cause of the problem, and whether anything was done.
        action: next step of the caller.
    """

    code: str
    status: HTTPStatus
    title: str
    meaning: str
    action: str

    @property
    def uri(self) -> str:
        """`type` of the problem: a URI reference, the absolute path of the page."""
        return f"{PATH}/{self.code.lower().replace('_', '-')}"


_TYPES: Final = (
    ProblemType(
        "INVALID_INPUT",
        HTTPStatus.BAD_REQUEST,
        "Invalid request",
        "A field, a parameter, a header or the body breaks a rule of the API. Nothing was done.",
        "Correct the fields that `fields` lists: each entry has the name of a field and the rule that it breaks. Do "
        "not repeat the request unchanged.",
    ),
    ProblemType(
        "INSUFFICIENT_FUNDS",
        HTTPStatus.BAD_REQUEST,
        "Insufficient funds",
        "The sender's account has less money than the transfer needs. Nothing was moved. `needed` is the amount of the "
        "transfer, `available` the amount that the account can send.",
        "Send a lower amount, or pay into the account first. Use a new idempotency key: with the old key the response "
        "is this error again.",
    ),
    ProblemType(
        "CURRENCY_MISMATCH",
        HTTPStatus.BAD_REQUEST,
        "Account has another currency",
        "The amount and an account of the request have different currencies. Nothing was moved.",
        "Use an account in the currency of the amount, and a new idempotency key.",
    ),
    ProblemType(
        "ACCOUNT_CLOSED",
        HTTPStatus.BAD_REQUEST,
        "Account is closed",
        "The account is closed permanently: it can neither send nor receive money.",
        "Use an open account and a new idempotency key.",
    ),
    ProblemType(
        "ACCOUNT_FROZEN",
        HTTPStatus.BAD_REQUEST,
        "Account is frozen",
        "An operator has frozen the account: it cannot pay, or cannot be paid, and cannot be closed. Nothing was "
        "moved.",
        "Ask support, or use another account and a new idempotency key.",
    ),
    ProblemType(
        "FLOOR_ABOVE_BALANCE",
        HTTPStatus.BAD_REQUEST,
        "Floor is above the balance",
        "The balance of the account is below the floor of the request. The floor was not changed.",
        "Set a lower floor, or wait until the account has a higher balance.",
    ),
    ProblemType(
        "ACCOUNT_NOT_EMPTY",
        HTTPStatus.BAD_REQUEST,
        "Account is not empty",
        "Only an account without a balance can be closed.",
        "Move the money out, then close the account.",
    ),
    ProblemType(
        "REFERENCE_USED",
        HTTPStatus.CONFLICT,
        "Reference is used",
        "An earlier transfer from the account has the reference, and the request asks for a unique one. Nothing was "
        "moved.",
        "List the transfers with the reference, and find out whether one of them is the transfer that you want to "
        "make. For another transfer, use another reference and a new idempotency key.",
    ),
    ProblemType(
        "TOP_UP_LIMIT_EXCEEDED",
        HTTPStatus.BAD_REQUEST,
        "Top-up limit exceeded",
        "The amount exceeds the limit of one top-up, or the limit of the caller's top-ups in 24 hours; `period` names "
        "the limit. The card was not charged.",
        "Send at most the amount in `available`, or, if `period` is `DAY`, wait until earlier top-ups are a day old.",
    ),
    ProblemType(
        "WRONG_PASSWORD",
        HTTPStatus.BAD_REQUEST,
        "Wrong current password",
        "The request to change the password has a wrong current password. Nothing was changed, and the attempt counts "
        "as a failed login.",
        "Send the right password. Too many attempts in a row lock the user name for a while.",
    ),
    ProblemType(
        "UNAUTHENTICATED",
        HTTPStatus.UNAUTHORIZED,
        "Authentication required",
        "The request has no valid access token. Nothing was done.",
        "Send `Authorization: Bearer …` with an access token. `POST /auth/refresh` or `POST /auth/login` returns a new "
        "one; then repeat the request.",
    ),
    ProblemType(
        "INVALID_CREDENTIALS",
        HTTPStatus.UNAUTHORIZED,
        "Wrong user name or password",
        "No user has this name and password. The response does not reveal whether the name exists.",
        "Correct the name or the password. Too many attempts in a row lock the user name for a while.",
    ),
    ProblemType(
        "PERMISSION_DENIED",
        HTTPStatus.FORBIDDEN,
        "Not allowed for this role",
        "The token is valid, but the role of its user does not allow the call.",
        "Log in as a user with a role that allows the call. A repeat with the same token is refused again.",
    ),
    ProblemType(
        "ACCOUNT_NOT_FOUND",
        HTTPStatus.NOT_FOUND,
        "Account not found",
        "The account does not exist, or belongs to another user. The response is the same in both cases.",
        "Check the account id. `GET /accounts` lists the caller's accounts.",
    ),
    ProblemType(
        "TRANSFER_NOT_FOUND",
        HTTPStatus.NOT_FOUND,
        "Transfer not found",
        "The transfer does not exist, or neither of its accounts is the caller's.",
        "Check the ids of the account and the transfer.",
    ),
    ProblemType(
        "TOP_UP_NOT_FOUND",
        HTTPStatus.NOT_FOUND,
        "Top-up not found",
        "The top-up does not exist, or its account is not the caller's.",
        "Check the ids of the account and the top-up.",
    ),
    ProblemType(
        "USER_NOT_FOUND",
        HTTPStatus.NOT_FOUND,
        "User not found",
        "The user does not exist, or the caller may not read it.",
        "Log in again: the user of the token may have been removed.",
    ),
    ProblemType(
        "NOT_FOUND",
        HTTPStatus.NOT_FOUND,
        "No such path",
        "The API has no such path.",
        "Check the path; `/openapi.yaml` lists all of them.",
    ),
    ProblemType(
        "METHOD_NOT_ALLOWED",
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Method not allowed",
        "The path exists, but not with this method.",
        "Use one of the methods in the header `Allow`.",
    ),
    ProblemType(
        "REQUEST_TIMEOUT",
        HTTPStatus.REQUEST_TIMEOUT,
        "Request body too slow",
        "The body did not arrive in time. Nothing was done.",
        "Repeat the request on a new connection.",
    ),
    ProblemType(
        "USERNAME_TAKEN",
        HTTPStatus.CONFLICT,
        "User name is taken",
        "A user already has this name; upper and lower case letters count as the same.",
        "Choose another name. If the response to an earlier registration was lost, the name may already be the "
        "caller's: log in to find out.",
    ),
    ProblemType(
        "LEDGER_RESTORED",
        HTTPStatus.GONE,
        "Cursor from before a restore",
        "The ledger was restored from a backup after this cursor was issued or this subscription was started, so its "
        "position may not exist.",
        "Read the list again from its start, without a cursor. Start a subscription again without a cursor.",
    ),
    ProblemType(
        "CONTENT_TOO_LARGE",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "Request body too large",
        "The body has more bytes than the API accepts; `detail` has the limit. Nothing was done.",
        "Send a smaller body.",
    ),
    ProblemType(
        "UNSUPPORTED_MEDIA_TYPE",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "Unsupported content type",
        "The body has a type or an encoding that the API does not accept. Nothing was done.",
        "Send JSON with `Content-Type: application/json`; `detail` names what the API accepts.",
    ),
    ProblemType(
        "IDEMPOTENCY_CONFLICT",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Idempotency key was used",
        "The caller has used this idempotency key with another request. Nothing was done.",
        "Use a new key for a new request. To repeat the first request, send it unchanged.",
    ),
    ProblemType(
        "RATE_LIMITED",
        HTTPStatus.TOO_MANY_REQUESTS,
        "Rate limit exceeded",
        "The caller has sent too many requests. Nothing was done.",
        "Wait for the seconds in `Retry-After`, then repeat the request.",
    ),
    ProblemType(
        "TOO_MANY_ATTEMPTS",
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many login attempts",
        "The user name is locked for a while after failed logins. The password was not checked.",
        "Wait for the seconds in `Retry-After`, then try again.",
    ),
    ProblemType(
        "TOP_UP_DECLINES_EXCEEDED",
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many declined cards",
        "Too many cards were declined. The card was not charged.",
        "Wait for the seconds in `Retry-After`. Then use another card, with a new idempotency key.",
    ),
    ProblemType(
        "SUBSCRIBER_TOO_SLOW",
        HTTPStatus.TOO_MANY_REQUESTS,
        "Subscriber too slow",
        "The subscriber fell too far behind, so the stream ended. No operation is lost.",
        "Subscribe again. As the start, give the cursor of the last operation that was received.",
    ),
    ProblemType(
        "RESOURCE_EXHAUSTED",
        HTTPStatus.TOO_MANY_REQUESTS,
        "Service overloaded",
        "The service has more requests than it can process. Nothing was done.",
        "Wait for the seconds in `Retry-After`, then repeat the request, with the same idempotency key if it has one.",
    ),
    ProblemType(
        "TOKEN_TOO_LONG",
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "Access token too long",
        "The access token is longer than the services accept; `detail` has the limit.",
        "Get a token with fewer claims.",
    ),
    ProblemType(
        "INTERNAL",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Unexpected error",
        "The request failed because of a defect of the system. The log has the details under the request id.",
        "Report `requestId` to support. If the request has an idempotency key, a repeat with the same key is safe.",
    ),
    ProblemType(
        "UNAVAILABLE",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Service unavailable",
        "A required service is unavailable. The outcome of a request that opens an account or moves money is unknown.",
        "Wait for the seconds in `Retry-After`, then repeat the request, with the same idempotency key if it has one.",
    ),
    ProblemType(
        "DEADLINE_EXCEEDED",
        HTTPStatus.GATEWAY_TIMEOUT,
        "No response in time",
        "A required service did not respond in time. The outcome of a request that opens an account or moves money is "
        "unknown.",
        "Repeat the request, with the same idempotency key if it has one.",
    ),
)

PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {each.code: each for each in _TYPES}
"""Problem types by code."""

_INTRODUCTION: Final = (
    "Every error of the REST API is a problem (RFC 9457) with the media type application/problem+json. Programs use "
    "`code`, which is stable. `title`, `detail` and the page at `type` are for people, and their texts may change. "
    "The HTTP server refuses some requests before they reach the API: those that are not valid HTTP/1.1, have no valid "
    "`Host`, have another `Transfer-Encoding` than `chunked`, send their headers too slowly, or exceed a limit of the "
    "server, such as the size of the headers. Such a response is text/plain, and the server closes the connection."
)

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width">
  <title>Wallet · {title}</title>
  <style>body {{ font: 1rem/1.5 sans-serif; margin: 3rem auto; max-width: 40rem; padding: 0 1rem; }}</style>
</head>
<body>
{body}
</body>
</html>
"""


def pages() -> dict[str, str]:
    """Return the HTML pages by path: the list of all types, and one page for each type."""
    items = "".join(
        f'  <li><a href="{each.uri}">{_html(each.title)}</a> ({each.status}, <code>{each.code}</code>)</li>\n'
        for each in _TYPES
    )
    index = f"<h1>Problems</h1>\n<p>{_html(_INTRODUCTION)}</p>\n<ul>\n{items}</ul>"
    return {PATH: _PAGE.format(title="Problems", body=index)} | {each.uri: _page(each) for each in _TYPES}


def markdown() -> str:
    """Return `docs/reference/problems.md`."""
    sections = "".join(
        f"\n## {each.title}\n\n`{each.code}`, status {each.status}, `{each.uri}`\n\n{each.meaning}\n\n{each.action}\n"
        for each in _TYPES
    )
    return (
        "# Problems\n\nGenerated from the code by `make gen`.\n\n"
        f"{_INTRODUCTION} The gateway serves this list at `{PATH}`.\n{sections}"
    )


def _page(type_: ProblemType) -> str:
    body = (
        f"<h1>{_html(type_.title)}</h1>\n<p>Status {type_.status}, code <code>{type_.code}</code></p>\n"
        f"<h2>What it means</h2>\n<p>{_html(type_.meaning)}</p>\n"
        f"<h2>What to do</h2>\n<p>{_html(type_.action)}</p>\n"
        f'<p><a href="{PATH}">All problems</a></p>'
    )
    return _PAGE.format(title=_html(type_.title), body=body)


def _html(text: str) -> str:
    """Return the text as HTML; parts in backticks are code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
