from kit.telemetry.log_throttle import LogThrottle


def test_lines_above_the_limit_of_a_second_are_omitted_and_counted() -> None:
    throttle = LogThrottle(2)
    assert [throttle.admits(now) for now in (7.0, 7.1, 7.2, 7.9)] == [True, True, False, False]
    assert throttle.admits(8.0)
    assert [throttle.take_omitted(), throttle.take_omitted()] == [2, 0]


def test_first_line_is_admitted_when_the_clock_starts_at_zero() -> None:
    assert LogThrottle(1).admits(0.0)
