"""An ASGI application that notes each client's request in ``app.state`` (Starlette under uvicorn, with real requests).

Repaired: it counts them.
"""

import asyncio

import uvicorn
from stage import Stage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def client_record(request: Request) -> dict[str, object]:
    headers = {name: f"{name}: {value}" for name, value in request.headers.items()}
    return {"path": request.url.path, "order": request.path_params["order"], "headers": headers}  # allocated here


async def accept_order(request: Request) -> PlainTextResponse:
    record = client_record(request)
    request.app.state.seen_clients.append(record)  # inserted here
    return PlainTextResponse("accepted")


async def count_order(request: Request) -> PlainTextResponse:
    request.app.state.count += bool(client_record(request))
    return PlainTextResponse("accepted")


async def main(stage: Stage) -> None:
    app = Starlette(routes=[Route("/orders/{order}", count_order if stage.repaired else accept_order)])
    app.state.seen_clients, app.state.count = [], 0
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    async for number in stage.aorders():
        writer.write(b"GET /orders/%d HTTP/1.1\r\nHost: depot\r\nUser-Agent: client %d\r\n\r\n" % (number, number))
        await reader.readuntil(b"accepted")
    writer.close()
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main(Stage(__doc__, rate=500)))
