"""Paths in logs have no card number, also if they are cut."""

import pytest

from kit.http.logged_path import path_to_log


def test_long_path_is_cut() -> None:
    assert path_to_log("/" + "x" * 255) == "/" + "x" * 255
    assert path_to_log("/" + "\udc80" * 256) == "/" + "\udc80" * 255 + "…"


@pytest.mark.parametrize("shown", range(1, 20))
def test_cut_within_a_card_number_leaves_none_of_its_digits(shown: int) -> None:
    path = "x" * (256 - shown) + "4242-4242-4242-4242" + "x" * 20
    assert path_to_log(path) == "x" * (256 - shown) + "9999-9999-9999-9999"[:shown] + "…"
