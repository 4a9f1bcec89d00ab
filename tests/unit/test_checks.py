"""The security rules of ruff are on: each finds an example of its defect."""

import subprocess
import sys

import pytest

from stack.process import ROOT

SQL = "def find(sql, id_):\n    return sql.execute({text})\n"


def findings(code: str) -> str:
    """Return ruff's report on the code with the project's rules, as if the code were a module of the bank."""
    file = "subgraphs/bank/service/adapters/postgres/example.py"
    command = (
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        "--output-format",
        "concise",
        "--stdin-filename",
        file,
        "-",
    )
    return subprocess.run(command, input=code, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60).stdout


@pytest.mark.parametrize(
    "text",
    [
        "f\"SELECT balance FROM accounts WHERE id = '{id_}'\"",
        "\"SELECT balance FROM accounts WHERE id = '%s'\" % id_",
        '"DELETE FROM accounts WHERE id = \'" + id_ + "\'"',
        '"UPDATE accounts SET balance = {}".format(id_)',
    ],
    ids=["f-string", "percent", "plus", "format"],
)
def test_concatenated_sql_is_reported(text: str) -> None:
    assert "S608" in findings(SQL.format(text=text))


def test_parametrized_sql_is_not_reported() -> None:
    assert "S608" not in findings(SQL.format(text='"SELECT balance FROM accounts WHERE id = $1", id_'))


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import subprocess\nsubprocess.run('ls', shell=True)\n", "S602"),
        ("import pickle\npickle.loads(b'')\n", "S301"),
        ("password = 'correct horse'\n", "S105"),
        ("import ssl\nssl._create_unverified_context()\n", "S323"),
        ("import hashlib\nhashlib.md5(b'')\n", "S324"),
    ],
    ids=["shell", "pickle", "password", "unverified TLS", "weak hash"],
)
def test_security_defect_is_reported(code: str, rule: str) -> None:
    assert rule in findings(code)
