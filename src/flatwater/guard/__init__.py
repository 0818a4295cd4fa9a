"""The guard: workers that somebody already has, recycled before memory ends them and without losing work.

:mod:`~flatwater.guard.huey`, :mod:`~flatwater.guard.celery`, :mod:`~flatwater.guard.dramatiq`,
:mod:`~flatwater.guard.rq`, :mod:`~flatwater.guard.django` and :mod:`~flatwater.guard.asgi` go into a worker;
:mod:`~flatwater.guard.supervisor` stands around any command. Nothing is imported here, so that a worker loads only what
it uses.
"""
