"""Whom a warm stop is meant for, and by which signal: told from command lines and the tree of processes."""

from __future__ import annotations

import signal

import pytest

from flatwater.guard.language import addressees, is_wrapper, warm_signal


@pytest.mark.parametrize(
    ("command", "environment", "expected"),
    [
        ("celery -A shop worker", {}, signal.SIGTERM),
        ("celery -A shop worker", {"REMAP_SIGTERM": "SIGQUIT"}, signal.SIGINT),
        ("/srv/bin/python -m celery -A shop worker", {"REMAP_SIGTERM": "SIGQUIT"}, signal.SIGINT),
        ("celery -A shop worker", {"REMAP_SIGTERM": "SIGUSR1"}, signal.SIGTERM),
        ("gunicorn shop", {"REMAP_SIGTERM": "SIGQUIT"}, signal.SIGTERM),
        ("python /srv/bin/huey_consumer.py shop.huey", {}, signal.SIGINT),
        ("python manage.py run_huey", {}, signal.SIGINT),
        ("sleep 9", {}, signal.SIGTERM),
    ],
)
def test_the_signal_of_a_warm_stop(command: str, environment: dict[str, str], expected: signal.Signals) -> None:
    assert warm_signal(command.split(), environment) is expected


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({1: ("celery worker", [2, 3]), 2: ("celery worker", []), 3: ("celery worker", [])}, [1]),
        ({1: ("sh -c x", [2]), 2: ("celery worker", [3]), 3: ("celery worker", [])}, [2]),
        ({1: ("/bin/bash start.sh", [2]), 2: ("-dash x", [3]), 3: ("sleep 9", [])}, [3]),
        ({1: ("tini -- sh x", [2]), 2: ("sh x", [3]), 3: ("python -m huey", [])}, [3]),
        ({1: ("sh -c x", [2, 3]), 2: ("celery worker", []), 3: ("tee log", [])}, [2]),
        ({1: ("sh -c x", [2, 3]), 2: ("python a.py", []), 3: ("python b.py", [])}, [2, 3]),
        ({1: ("sh -c x", [])}, [1]),
        ({1: ("sudo celery", [2]), 2: ("celery", [])}, [1]),
        ({1: ("su shop -c x", [2]), 2: ("celery worker", [])}, [2]),
        ({1: ("python /bin/pdm run celery -A a", [2]), 2: ("/v/python3.12 /v/celery -A a", [])}, [2]),
        ({1: ("doppler run -- python -m huey", [2]), 2: ("/v/python -m huey", [3]), 3: ("/v/python -m huey", [])}, [2]),
        ({1: ("hatch run worker.py", [2]), 2: ("sh -c worker.py", [3]), 3: ("worker.py -v", [])}, [1]),
        ({1: ("python worker.py chromium", [2]), 2: ("/usr/bin/chromium", [])}, [1]),
        ({1: ("/v/python3.12 /v/celery -A a", [2]), 2: ("/v/python3.12 /v/celery -A a", [])}, [1]),
    ],
)
def test_who_is_asked(tree: dict[int, tuple[str, list[int]]], expected: list[int]) -> None:
    assert addressees(1, lambda pid: tree[pid][0].split(), lambda pid: tree[pid][1]) == expected


def test_a_process_that_is_gone_is_no_wrapper() -> None:
    assert not is_wrapper([])
