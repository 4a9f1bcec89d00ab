import base64
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wallet import cursor

EPOCH = "0197a0b0-0000-7000-8000-00000000000a"


class TestVersionCursor:
    @given(st.integers(0, 2**63 - 1))
    def test_version_cursor_decodes_to_the_version(self, version: int) -> None:
        assert cursor.decode_version(cursor.encode_version(version)) == version

    @given(st.integers(0, 2**63 - 1))
    def test_version_cursor_needs_no_url_quoting(self, version: int) -> None:
        assert set(cursor.encode_version(version)).isdisjoint("+/=&?# ")

    @given(st.integers(0, 2**63 - 1), st.uuids())
    def test_cursor_of_a_later_epoch_decodes_to_version_and_epoch(self, version: int, epoch: uuid.UUID) -> None:
        text = cursor.encode_version(version, str(epoch))
        assert cursor.decode_position(text) == (version, str(epoch))
        assert cursor.decode_version(text) == version
        assert len(text) <= 128  # the contract's maximum

    def test_cursor_without_an_epoch_decodes_to_the_first_epoch(self) -> None:
        assert cursor.decode_position(cursor.encode_version(7)) == (7, "")

    @given(st.text() | st.text("dvjMTIzAB-_=", max_size=12))
    @example("")
    @example("djE=")
    @example("dj\n")
    def test_text_that_is_not_an_encoded_version_is_rejected(self, text: str) -> None:
        try:
            version = cursor.decode_version(text)
        except ValueError as error:
            assert str(error) == "must be a cursor from an earlier response"  # noqa: PT017  most generated texts are not cursors
        else:
            assert cursor.encode_version(version) == text

    @pytest.mark.parametrize(
        "payload",
        [
            *("v-1", "v01", "v+1", "v 1", "v1_0", "v", "1", "w1", "v1.0", "v1.", "v" + "9" * 5000, f"v{2**63}"),
            *("v\uff11", f"v1.{{{EPOCH}}}", f"v1.{EPOCH.upper()}"),
        ],
    )
    def test_forged_version_cursor_is_rejected(self, payload: str) -> None:
        forged = base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")
        with pytest.raises(ValueError, match="must be a cursor from an earlier response"):
            cursor.decode_version(forged)


class TestIdCursor:
    @given(st.uuids())
    def test_id_cursor_decodes_to_the_id_and_needs_no_url_quoting(self, id_: uuid.UUID) -> None:
        assert cursor.decode_id(cursor.encode_id(id_)) == id_
        assert set(cursor.encode_id(id_)).isdisjoint("+/=&?# ")

    @given(st.integers(0, 2**63 - 1), st.uuids())
    def test_cursors_of_the_other_kind_are_rejected(self, version: int, id_: uuid.UUID) -> None:
        for decode, other in (
            (cursor.decode_id, cursor.encode_version(version)),
            (cursor.decode_version, cursor.encode_id(id_)),
        ):
            with pytest.raises(ValueError, match="must be a cursor from an earlier response"):
                decode(other)

    @pytest.mark.parametrize("payload", ["i", f"i{uuid.UUID(int=1)}", f"i{uuid.UUID(int=10).hex.upper()}", "i1"])
    def test_forged_id_cursor_is_rejected(self, payload: str) -> None:
        forged = base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")
        with pytest.raises(ValueError, match="must be a cursor from an earlier response"):
            cursor.decode_id(forged)
