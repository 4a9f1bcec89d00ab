"""Dates in the query of an account's operations."""

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.rest.times import DateTime

DATE_TIME: TypeAdapter[object] = TypeAdapter(DateTime)


@pytest.mark.parametrize("offset", [" 03:00", " 0300", " 03"])
@pytest.mark.parametrize("time", ["2026-11-30T00:00", "2026-11-30T00:00:00", "2026-11-30 00:00:00.5"])
def test_offset_without_its_plus_sign_is_refused_with_how_to_write_it_in_a_url(time: str, offset: str) -> None:
    with pytest.raises(ValidationError, match=r"in a URL, write the \+ of an offset as %2B, as in 12:00:00%2B03:00"):
        DATE_TIME.validate_python(time + offset)


@pytest.mark.parametrize("text", ["2026-11-30 12:00", "2026-11-30T12:00:00", "yesterday", "1"])
def test_other_invalid_dates_are_refused_without_it(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DATE_TIME.validate_python(text)
    assert "%2B" not in str(caught.value)


@pytest.mark.parametrize("text", ["2026-11-30 12:00Z", "2026-11-30T12:00:00+03:00"])
def test_dates_with_an_offset_are_accepted(text: str) -> None:
    DATE_TIME.validate_python(text)
