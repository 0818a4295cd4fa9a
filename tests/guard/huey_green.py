"""Huey's consumer with gevent's patches in place before anything else is imported, as its documentation asks."""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from huey.bin.huey_consumer import consumer_main

if __name__ == "__main__":
    consumer_main()
