"""A list in a context variable: an audit trail "of the request", set once for the whole server.

Repaired: each request is handled in a context of its own, with a trail of its own.
"""

import asyncio
import contextvars

from stage import Stage

audit_trail: contextvars.ContextVar[list[dict[str, str]]] = contextvars.ContextVar("audit_trail")


def audit(number: int) -> None:
    entry = {"who": f"user {number}", "what": f"moved pallet {number} to place {number}" * 4}  # allocated here
    audit_trail.get().append(entry)  # inserted here


def handle(number: int) -> None:
    audit(number)


def handle_in_its_own(number: int) -> None:
    audit_trail.set([])
    audit(number)


async def serve(stage: Stage) -> None:
    audit_trail.set([])
    async for number in stage.aorders():
        if stage.repaired:
            contextvars.copy_context().run(handle_in_its_own, number)
        else:
            handle(number)


if __name__ == "__main__":
    asyncio.run(serve(Stage(__doc__, rate=900)))
