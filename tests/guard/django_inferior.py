"""Huey's and Celery's tasks that ask Django's database, for a worker in a process of its own."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import django
import pymysql
from django.conf import settings
from django.db import connection
from huey import RedisHuey

import flatwater.guard.huey

pymysql.install_as_MySQLdb()
settings.configure(DATABASES={"default": json.loads(os.environ["INFERIOR_DATABASE"])})
django.setup()

POSTGRES = connection.vendor == "postgresql"
OWN = "SELECT pg_backend_pid()" if POSTGRES else "SELECT connection_id()"
END = "SELECT pg_terminate_backend(pg_backend_pid())" if POSTGRES else "KILL CONNECTION_ID()"


def asked(query: str = OWN) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


if "INFERIOR_PARENT" in os.environ:  # as an application that asks while it is imported
    parent = asked()


def touch(number: int) -> None:
    number_of_connection = asked()
    with open(os.environ["INFERIOR_DONE"], "a") as file:  # noqa: PTH123
        file.write(f"{number} {number_of_connection} {os.getpid()} {threading.get_ident()}\n")


def break_connection() -> None:
    asked(END)


huey = RedisHuey("inferior", url=os.environ["INFERIOR_STORAGE"])
soft = os.environ.get("INFERIOR_SOFT")
flatwater.guard.huey.install(huey, soft=int(soft) << 20 if soft else None)
huey_touch, huey_break = huey.task()(touch), huey.task()(break_connection)

if "INFERIOR_CELERY" in os.environ:  # its import takes as long as all the others
    from celery import Celery

    import flatwater.guard.celery

    app = Celery("inferior", broker=os.environ["INFERIOR_STORAGE"])
    app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)
    flatwater.guard.celery.install(app)
    celery_touch, celery_break = app.task(name="touch")(touch), app.task(name="break")(break_connection)
