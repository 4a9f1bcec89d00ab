from kit.runtime.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_start_anew_after_a_success() -> None:
    backoff = Backoff(1, 5)
    for bound in (1, 2, 4, 5, 5):
        assert bound / 2 <= backoff.next_delay() <= bound
    backoff.reset()
    assert backoff.next_delay() <= 1


def test_no_two_who_began_together_come_back_together() -> None:
    assert len({Backoff(1, 5).next_delay() for _ in range(10)}) > 1
