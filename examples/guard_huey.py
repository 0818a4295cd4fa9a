"""A Huey worker of which one task keeps what it has read. In a terminal each:

python guard_huey.py                                                    puts 300 tasks into the queue
flatwater guard --soft 150MiB -- huey_consumer guard_huey.huey -w 2     works them off, replaced when it has grown
flatwater guard report                                                  says which task grows
"""

import random
import time

from huey import SqliteHuey

from flatwater.guard.huey import install

huey = SqliteHuey("shop", filename="shop.db")
guard = install(huey, soft=120 << 20, hard=400 << 20)
seen = []


@huey.task()
def read_order(number):
    seen.append(bytearray(b"x" * 700_000))


@huey.task()
def send_mail(number):
    time.sleep(0.04)


def fill():
    for number in range(300):
        random.choice([read_order, send_mail])(number)


if __name__ == "__main__":
    from guard_huey import fill  # under the name by which the worker knows it

    fill()
