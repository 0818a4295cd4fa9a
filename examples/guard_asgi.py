"""A web app of which one route keeps each request it has seen.

flatwater guard -- uvicorn guard_asgi:app --port 8000     serves it; the process leaves at 80 MiB and is replaced
flatwater guard report                                    says which route grows, and who holds a request
"""

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from flatwater.guard.asgi import install

seen = []


async def order(request):
    seen.append((request, bytearray(b"x" * 100_000)))
    return PlainTextResponse(f"order {request.path_params['number']}\n")


async def health(request):
    return PlainTextResponse("well\n")


app = Starlette(routes=[Route("/orders/{number}", order), Route("/health", health)])
app = install(app, soft=80 << 20, hard=400 << 20)
