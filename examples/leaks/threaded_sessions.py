"""Sessions of a server with four worker threads, in a dictionary under a lock, by a token that is new with each login.

Repaired: a logout removes the session.
"""

import itertools
import queue
import threading

from stage import Stage


class Session:
    def __init__(self, token: str) -> None:
        self.token = token
        self.rights = {f"right {right} of {token}" for right in range(6)}


class SessionStore:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions: dict[str, Session] = {}
        self.tokens = itertools.count()

    def log_in(self) -> str:
        with self.lock:
            token = f"token-{next(self.tokens):032d}"
            session = Session(token)  # allocated here
            self.sessions[token] = session  # inserted here
        return token

    def log_out(self, token: str) -> None:
        with self.lock:
            del self.sessions[token]


def work(store: SessionStore, jobs: "queue.Queue[int | None]", stage: Stage) -> None:
    while jobs.get() is not None:
        token = store.log_in()
        if stage.repaired:
            store.log_out(token)


def main() -> None:
    stage = Stage(__doc__, rate=500)
    store, jobs = SessionStore(), queue.Queue[int | None](maxsize=100)
    threads = [
        threading.Thread(target=work, args=(store, jobs, stage), name=f"worker-{n}", daemon=True) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for number in stage.orders():
        jobs.put(number)
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
