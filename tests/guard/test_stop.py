"""How urgently signals ask a guard to end."""

from __future__ import annotations

import signal

import pytest

from flatwater.guard.stop import Stop

TERM, INT, QUIT = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT


@pytest.mark.parametrize(
    ("signals", "kills"),
    [
        ([(TERM, 7.0)], ""),
        ([(INT, 7.0), (INT, 7.1)], ""),  # one Ctrl-C, passed on by a wrapper; timeout's two
        ([(INT, 7.0), (TERM, 7.1), (INT, 7.6)], "asked twice"),
        ([(INT, 7.0), (TERM, 99.0)], "asked twice"),
        ([(QUIT, 7.0)], "asked by SIGQUIT"),
        ([(TERM, 7.0), (QUIT, 7.1)], "asked by SIGQUIT"),
    ],
)
def test_a_second_wish_kills_and_an_echo_of_the_first_does_not(signals: list[tuple[int, float]], kills: str) -> None:
    stop = Stop()
    assert not stop.asked
    for number, at in signals:
        stop.take(number, at)
        assert stop.asked
    assert stop.kills == kills
