from pathlib import Path

import pytest

from subgraphs.analytics.service.adapters.clickhouse.connection import database_name
from subgraphs.analytics.service.migrations.schema import MIGRATIONS, load_migrations


class TestLoadMigrations:
    def test_statements_end_with_a_semicolon_at_the_end_of_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "0001_first.sql").write_text("-- a; b\nSELECT ';'\n  , 1;\nSELECT 2;  \n")
        (migration,) = load_migrations(tmp_path)
        assert migration.statements == ("-- a; b\nSELECT ';'\n  , 1", "SELECT 2")
        assert str(migration) == "0001_first"

    def test_checksum_changes_with_the_text(self, tmp_path: Path) -> None:
        file = tmp_path / "0001_first.sql"
        file.write_text("SELECT 1;")
        (before,) = load_migrations(tmp_path)
        file.write_text("SELECT 2;")
        (after,) = load_migrations(tmp_path)
        assert before.checksum != after.checksum

    @pytest.mark.parametrize("names", [["0002_first.sql"], ["0001_a.sql", "0001_b.sql"], ["1_first.sql"]])
    def test_file_name_with_a_wrong_number_is_refused(self, tmp_path: Path, names: list[str]) -> None:
        for name in names:
            (tmp_path / name).write_text("SELECT 1;")
        with pytest.raises(ValueError, match="rename it to 000"):
            load_migrations(tmp_path)

    def test_released_migrations_are_unchanged(self) -> None:
        """Write a new migration instead of editing one: services refuse databases that applied the old text."""
        assert {str(each): each.checksum for each in MIGRATIONS} == {
            "0001_operations": "85cc2d09bd3ee9ea3aaefe780238cfeba6fe3442ce270d827fd323fc5ca6462f",
            "0002_words": "46bdeaa9ae18d7b11f31563f0f8d6c7b0507a85042742b5ead034f23f9c553ab",
        }


@pytest.mark.parametrize(
    ("dsn", "name"),
    [
        ("http://u:p@host:8123/wallet", "wallet"),
        ("http://host:8123/my%20db/", "my db"),
        ("http://host:8123", "default"),
    ],
)
def test_dsn_has_the_name_of_the_database(dsn: str, name: str) -> None:
    assert database_name(dsn) == name
