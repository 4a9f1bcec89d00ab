"""The tables of `docs/reference/access.md` match the access policies in the code."""

import re

from gateway import policy as gateway
from kit.auth.access import AccessRule
from kit.auth.principal import Role
from stack.process import ROOT
from subgraphs.analytics.service.api import policy as analytics
from subgraphs.bank.service.api import policy as bank
from subgraphs.card.service.api import policy as card
from subgraphs.identity.service.api import policy as identity

ROW = re.compile(r"^\| `(?P<call>[^`]+)` \|(?:[^|]*\|){5}$", re.MULTILINE)
RULES = {
    **gateway.REST_RULES,
    **gateway.GRAPH_RULES,
    **{f"BankService.{method}": rule for method, rule in bank.POLICY.items()},
    **{f"CardService.{method}": rule for method, rule in card.POLICY.items()},
    **{f"AnalyticsService.{method}": rule for method, rule in analytics.POLICY.items()},
    **{f"IdentityService.{method}": rule for method, rule in identity.POLICY.items()},
    **{f"bank {route}": rule for route, rule in bank.ADMIN.items()},
    **{f"card {route}": rule for route, rule in card.ADMIN.items()},
    **{f"analytics {route}": rule for route, rule in analytics.ADMIN.items()},
}


def expected_row(call: str, rule: AccessRule) -> str:
    """Return the row of the table for the rule."""
    if rule.is_public:
        cells = ["yes"] * 4
    else:
        scope = {Role.CUSTOMER: "own", Role.OPERATOR: "any", Role.ADMIN: "any"}
        cells = ["", *(scope[role] if role in rule.roles else "" for role in Role)]
    return f"| `{call}` | {' | '.join([*cells, ', '.join(sorted(rule.services))])} |"


def test_access_page_has_the_row_of_every_rule_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "access.md").read_text()
    rows = {row["call"]: row[0] for row in ROW.finditer(page)}
    assert rows == {call: expected_row(call, rule) for call, rule in RULES.items()}
