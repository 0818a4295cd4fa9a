"""Files that take long begin first: what begins last decides when two processes that share the tests are done.

Only with ``--no-loadscope-reorder`` (make test): pytest-xdist puts the files with most tests first otherwise.
"""

from __future__ import annotations

import pytest

LONG = (
    "guard/test_celery.py",
    "server/test_browser.py",
    "guard/test_supervisor.py",
    "server/test_serve.py",
    "guard/test_dramatiq.py",
    "guard/test_django.py",
    "guard/test_huey.py",
    "server/test_openapi.py",
    "gallery/test_gallery.py",
    "live/test_kill.py",
    "memory/test_diagnosis.py",
    "server/test_browser_guard.py",
    "memory/test_work.py",
    "test_examples.py",
    "store/test_writer.py",
    "gateway/test_express.py",
    "guard/test_rq.py",
    "memory/test_growth.py",
    "guard/test_overlap.py",
    "guard/test_asgi.py",
    "live/test_two_servers.py",
    "engine/blocks/test_http.py",
    "test_pytest_plugin.py",
    "cli/test_cli.py",
    "memory/test_maker.py",
    "demo/test_plant.py",
    "engine/test_recovery.py",
    "engine/test_robot.py",
    "memory/test_record_cli.py",
    "memory/test_heap_quiet.py",
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
