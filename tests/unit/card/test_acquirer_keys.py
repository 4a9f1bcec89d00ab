import pytest

from subgraphs.card.service.domain.top_up import Step, top_up_id_from_key
from tests.unit.card.top_ups import top_up


class TestKeys:
    def test_each_step_has_its_own_key(self) -> None:
        one = top_up()
        assert len({one.acquirer_key(step) for step in Step}) == len(Step)

    def test_retry_after_a_review_has_new_keys_except_for_the_authorization(self) -> None:
        original, retried = top_up(), top_up(retries=1)
        same = {step for step in Step if original.acquirer_key(step) == retried.acquirer_key(step)}
        assert same == {Step.AUTHORIZE}

    def test_authorization_key_contains_the_top_up_id(self) -> None:
        one = top_up()
        assert one.authorization_key == f"{one.id}:authorize"
        assert top_up_id_from_key(one.authorization_key) == one.id

    @pytest.mark.parametrize("key", ["", "x", "01A1FC68-AD44-74C3-A6D6-42556A5C7775:authorize", "x:authorize"])
    def test_key_that_is_not_an_authorization_key_has_no_top_up_id(self, key: str) -> None:
        assert top_up_id_from_key(key) is None
        assert top_up_id_from_key(f"{top_up().id}:void") is None
