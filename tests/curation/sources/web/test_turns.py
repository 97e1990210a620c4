"""Turns at hosts, by a clock that the test holds."""

from __future__ import annotations

from curation.sources.web.turns import FULL_S, LEASE_S, HostTurns


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_host_gets_no_more_requests_at_a_time_than_asked_for():
    turns = HostTurns(Clock())
    assert turns.wait_s("a:80", "one", delay_s=0, most=2) == 0
    assert turns.wait_s("a:80", "two", delay_s=0, most=2) == 0
    assert turns.wait_s("a:80", "three", delay_s=0, most=2) == FULL_S
    assert turns.wait_s("b:80", "three", delay_s=0, most=2) == 0
    turns.end("a:80", "one")
    assert turns.wait_s("a:80", "three", delay_s=0, most=2) == 0


def test_requests_to_a_host_begin_the_delay_apart():
    clock = Clock()
    turns = HostTurns(clock)
    assert turns.wait_s("a:80", "one", delay_s=5, most=9) == 0
    turns.end("a:80", "one")
    clock.now += 2
    assert turns.wait_s("a:80", "two", delay_s=5, most=9) == 3
    clock.now += 3
    assert turns.wait_s("a:80", "two", delay_s=5, most=9) == 0


def test_a_turn_whose_holder_has_died_is_over_and_one_that_is_kept_is_not():
    clock = Clock()
    turns = HostTurns(clock)
    turns.wait_s("a:80", "dead", delay_s=0, most=1)
    clock.now += LEASE_S - 1
    assert turns.wait_s("a:80", "next", delay_s=0, most=1) == FULL_S
    turns.keep("a:80", "dead")  # it lives
    clock.now += 2
    assert turns.wait_s("a:80", "next", delay_s=0, most=1) == FULL_S
    clock.now += LEASE_S
    assert turns.wait_s("a:80", "next", delay_s=0, most=1) == 0


def test_a_host_that_asks_for_a_pause_is_left_alone_by_all():
    clock = Clock()
    turns = HostTurns(clock)
    turns.wait_s("a:80", "one", delay_s=0, most=9)
    turns.end("a:80", "one", pause_s=30)
    assert turns.wait_s("a:80", "two", delay_s=0, most=9) == 30
    assert turns.wait_s("b:80", "two", delay_s=0, most=9) == 0
