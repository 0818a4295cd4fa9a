"""Files that take long begin first: what begins last decides when two processes that share the tests are done.

Only with ``--no-loadscope-reorder`` (make test): pytest-xdist puts the files with most tests first otherwise.
"""

from __future__ import annotations

import pytest

LONG = (
    "guard/test_celery.py",
    "server/test_browser.py",
    "server/test_openapi.py",
    "gallery/test_gallery.py",
    "guard/test_huey.py",
    "memory/test_growth.py",
    "memory/test_diagnosis.py",
    "guard/test_supervisor.py",
    "guard/test_asgi.py",
    "server/test_serve.py",
    "live/test_kill.py",
    "test_pytest_plugin.py",
    "cli/test_cli.py",
    "memory/test_maker.py",
    "demo/test_plant.py",
    "engine/test_recovery.py",
    "engine/test_robot.py",
    "memory/test_record_cli.py",
    "memory/test_heap_quiet.py",
    "test_examples.py",
    "engine/test_driver.py",
    "memory/test_attach.py",
    "test_leak.py",
)
"""By what they take on an idle machine, from a minute down to ten seconds."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ranks = {config.rootpath / "tests" / name: rank for rank, name in enumerate(LONG)}
    if unknown := [str(path) for path in ranks if not path.exists()]:
        raise pytest.UsageError(f"tests/order.py: there is no {', '.join(unknown)}")
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
