"""Choices of the users: one seed gives the same choices."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtests import account_selection
from loadtests.choices import UserChoices
from loadtests.plan import Customer, Plan

CHOICES: dict[str, Callable[[UserChoices], Any]] = {
    "transfers": UserChoices.next_transfer,
    "top-ups": UserChoices.next_top_up,
    "reads": UserChoices.next_read,
    "customers": UserChoices.next_customer,
    "forms of keys": UserChoices.quotes_key,
}
every_choice = pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)


def plan(seed: int = 1, selection: str = "uniform", prefix: str = "") -> Plan:
    """Return a plan with ten customers; the prefix is in their names."""
    customers = [Customer(f"{prefix}{number}", "", "", "") for number in range(10)]
    return Plan(host="http://127.0.0.1:1", seed=seed, account_selection=selection, customers=customers)


def draw(
    choose: Callable[[UserChoices], Any], plan: Plan, scenario: str = "A", process: int = 0, number: int = 0
) -> list[Any]:
    user = UserChoices(plan, scenario, process, number)
    return [choose(user) for _ in range(100)]


@every_choice
def test_two_plans_with_one_seed_choose_the_same_sequence(choose: Callable[[UserChoices], Any]) -> None:
    assert draw(choose, plan()) == draw(choose, plan())


@pytest.mark.parametrize("selection", account_selection.BY_NAME)
def test_one_seed_selects_the_same_accounts_of_other_customers(selection: str) -> None:
    def senders_and_recipients(prefix: str) -> list[tuple[str, str]]:
        choices = draw(UserChoices.next_transfer, plan(selection=selection, prefix=prefix))
        return [
            (each.sender.subject.removeprefix(prefix), each.recipient.subject.removeprefix(prefix)) for each in choices
        ]

    assert senders_and_recipients("first run, ") == senders_and_recipients("second run, ")


@every_choice
def test_another_seed_chooses_another_sequence(choose: Callable[[UserChoices], Any]) -> None:
    assert draw(choose, plan(seed=1)) != draw(choose, plan(seed=2))


@every_choice
@pytest.mark.parametrize("other", [{"scenario": "B"}, {"process": 1}, {"number": 1}], ids=str)
def test_users_of_one_run_choose_different_sequences(
    choose: Callable[[UserChoices], Any], other: dict[str, Any]
) -> None:
    assert draw(choose, plan()) != draw(choose, plan(), **other)


def test_number_of_sent_requests_does_not_change_the_choices() -> None:
    def choose_after_retries(user: UserChoices) -> Any:
        user.quotes_key()
        return user.next_transfer()

    assert draw(choose_after_retries, plan()) == draw(UserChoices.next_transfer, plan())


def test_a_few_transfers_are_duplicated_and_fewer_contradicted() -> None:
    user = UserChoices(plan(), "A", 0, 0)
    kinds = Counter(
        (choice.is_duplicated, choice.is_contradicted) for choice in (user.next_transfer() for _ in range(10_000))
    )
    duplicated, contradicted = kinds[True, False] + kinds[True, True], kinds[False, True] + kinds[True, True]
    assert 400 < duplicated < 600
    assert 50 < contradicted < 150


# Importing Locust would patch this process for gevent.
SCRIPT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from locust.env import Environment
from loadtests.plan import Plan
from loadtests.scenarios.reads import Reads
from loadtests.scenarios.rest import RestTransfers
from loadtests.scenarios.topups import TopUps
from loadtests.scenarios.users import WalletUser

sent = []
WalletUser.plan = plan = Plan.read(Path(sys.argv[1]))
WalletUser.host = plan.host
WalletUser.writer = SimpleNamespace(write=lambda record: None)
WalletUser.send_http = lambda self, name, method, path, customer, *_, **more: sent.append(
    [name, path, more]
)
RestTransfers.transfer = TopUps.transfer = lambda self, request, sender: sent.append(
    [str(request.body), request.key.key.partition("-")[0] if request.key.operation == "top-up" else ""]
)
for user_class in (RestTransfers, RestTransfers, TopUps, Reads):
    user = user_class(Environment(user_classes=[user_class]))
    user.on_start()
    for _ in range(50):
        user.act()
print(json.dumps(sent))
"""


@pytest.mark.slow
def test_users_of_two_runs_with_one_seed_send_the_same_requests(tmp_path: Path) -> None:
    accounts = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(5)]
    customers = [Customer(account, account, "token", account) for account in accounts]

    def run(seed: int) -> list[Any]:
        Plan(host="http://127.0.0.1:1", seed=seed, customers=customers).write(tmp_path)
        script = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        sent: list[Any] = json.loads(subprocess.run(script, check=True, stdout=subprocess.PIPE).stdout)
        assert len(sent) > 200
        return sent

    assert run(seed=7) == run(seed=7) != run(seed=8)
