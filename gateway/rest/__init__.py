"""The REST API of `openapi/openapi.yaml`: one module per resource, each with its routes and converters."""

from starlette.routing import BaseRoute

from gateway.http.rate_limits import RateLimiter
from gateway.http.work_limits import WorkLimits
from gateway.rest.accounts import account_routes
from gateway.rest.balances import balance_routes
from gateway.rest.operations import operation_routes
from gateway.rest.page_charge import page_charge
from gateway.rest.top_ups import top_up_routes
from gateway.rest.transfer_batches import transfer_batch_route
from gateway.rest.transfers import transfer_routes
from gateway.rest.users import user_routes
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.card.client import CardClient
from subgraphs.identity.client import IdentityClient


def rest_routes(
    bank: BankClient,
    analytics: AnalyticsClient,
    card: CardClient,
    identity: IdentityClient,
    limiter: RateLimiter,
    work: WorkLimits,
) -> list[BaseRoute]:
    """Build the contract's routes, in the order in which the router tries them.

    Args:
        bank: gRPC client of the bank.
        analytics: gRPC client of analytics.
        card: gRPC client of the card service.
        identity: gRPC client of the identity service.
        limiter: counts large pages and batches as several requests.
        work: limits of the work in progress of each client.
    """
    charge_page = page_charge(limiter)
    return [
        *transfer_routes(bank, charge_page),
        transfer_batch_route(bank, limiter, work),
        *account_routes(bank, charge_page),
        *balance_routes(bank).routes,
        *top_up_routes(card).routes,
        *operation_routes(analytics, charge_page).routes,
        *user_routes(identity, work).routes,
    ]
