import pytest

from subgraphs.card.service.domain.top_up import Step, top_up_of
from tests.unit.card.top_ups import top_up


class TestKeys:
    def test_each_step_has_its_own_and_the_first_leads_back(self) -> None:
        one = top_up()
        assert len({one.acquirer_key(step) for step in Step}) == len(Step)

    def test_that_a_person_has_looked_at_goes_on_by_keys_that_nothing_was_refused_by(self) -> None:
        one, again = top_up(), top_up(retries=1)
        same = {step for step in Step if one.acquirer_key(step) == again.acquirer_key(step)}
        assert same == {Step.AUTHORIZE}
        assert one.authorization_key == f"{one.id}:authorize"
        assert top_up_of(one.authorization_key) == one.id

    @pytest.mark.parametrize("key", ["", "x", "01A1FC68-AD44-74C3-A6D6-42556A5C7775:authorize", "x:authorize"])
    def test_of_others_lead_nowhere(self, key: str) -> None:
        assert top_up_of(key) is None
        assert top_up_of(f"{top_up().id}:void") is None
