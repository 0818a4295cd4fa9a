"""A Celery worker of which one task keeps what it has read. With Redis on this machine, in a terminal each:

python guard_celery.py                                                            sends 300 tasks
flatwater guard -- celery -A guard_celery worker -c 2 --loglevel WARNING          grown children are replaced
flatwater guard report                                                            says which task grows
"""

import os
import random
import time

from celery import Celery

from flatwater.guard.celery import install

app = Celery("shop", broker=os.environ.get("BROKER", "redis://127.0.0.1:6379/0"))
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
guard = install(app, soft=60 << 20)
seen = []


@app.task(name="shop.read_order")
def read_order(number):
    seen.append(bytearray(b"x" * 700_000))


@app.task(name="shop.send_mail")
def send_mail(number):
    time.sleep(0.04)


if __name__ == "__main__":
    for number in range(300):
        random.choice([read_order, send_mail]).delay(number)
