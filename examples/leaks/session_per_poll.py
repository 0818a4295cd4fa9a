"""A database session per look at a flag (task server, S1.4).

``check_task_cancel`` asks the database each second whether a task was cancelled, by the session of the current asyncio
task. Every check runs as a task of its own, and nobody calls ``remove()``: the registry of SQLAlchemy's
``scoped_session`` keeps them all. Repaired: the session is removed when the check is over.
"""

import asyncio

from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool
from stage import Stage

engine = create_engine("sqlite://", poolclass=StaticPool)
get_session = scoped_session(sessionmaker(engine), scopefunc=asyncio.current_task)


async def check_task_cancel(number: int) -> bool:
    session = get_session()  # allocated here, inserted here
    status = session.execute(text("SELECT :number < 0"), {"number": number}).scalar()
    session.rollback()
    return bool(status)


async def check_and_remove(number: int) -> bool:
    try:
        return await check_task_cancel(number)
    finally:
        get_session.remove()


async def work(stage: Stage) -> None:
    check = check_and_remove if stage.repaired else check_task_cancel
    async for number in stage.aorders():
        await asyncio.create_task(check(number))


if __name__ == "__main__":
    asyncio.run(work(Stage(__doc__, rate=150)))
