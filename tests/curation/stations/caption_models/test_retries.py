from datetime import UTC, datetime

import pytest
from tenacity import Future, RetryCallState

from curation.stations.caption_models.retries import PassingError, retry_after_s, wait_as_asked

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("864000", 864_000.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 -0000", 30.0),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after_s(header, NOON) == seconds


def waits(attempt, retry_after=None, *, count=300):
    wait = wait_as_asked(backoff_s=1.0, max_wait_s=20.0)
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = attempt
    state.outcome = Future(attempt)
    state.outcome.set_exception(PassingError("server_error", "", retry_after))
    return [wait(state) for _ in range(count)]


def test_waits_are_random_below_a_bound_that_doubles_up_to_the_cap():
    assert 0 <= min(waits(1)) < 0.2
    assert 0.8 < max(waits(1)) <= 1
    assert 3 < max(waits(3)) <= 4
    assert 15 < max(waits(30)) <= 20


def test_what_the_server_asks_for_is_waited_at_least_and_the_cap_at_most():
    assert 5 <= min(waits(1, 5.0)) <= max(waits(1, 5.0)) <= 6
    assert 20 <= min(waits(1, 864_000.0)) <= max(waits(1, 864_000.0)) <= 21
