"""The built page: files under ``static/``, known at the start, so no request can name any other path."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from collections.abc import Mapping
from pathlib import Path

import msgspec

from flatwater.server.problem import RequestError, failure
from flatwater.server.reply import Send, answer, fail
from flatwater.server.request import Receive, Scope, header

STATIC = Path(__file__).parent / "static"
MAX_FILES = 500
_UNBUILT = b"The page is not built. `make ui` builds it; the API is described at /openapi.json.\n"


class File(msgspec.Struct, frozen=True):
    """A file of the page: where it is, and what it is served as."""

    path: Path
    media: str
    tag: str
    cache: str


class Page:
    """ASGI application of everything that no API route takes."""

    def __init__(self, root: Path = STATIC) -> None:
        self._files = _files(root)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            refused = RequestError(
                405, "method", f"{scope['method']} is not possible here", headers={"Allow": "GET, HEAD"}
            )
            await fail(send, failure(refused if path in self._files else _missing(path)))
            return
        if path in ("/", "/index.html") and "/" not in self._files:
            await answer(send, 404, _UNBUILT, {"content-type": "text/plain; charset=utf-8"})
            return
        file = self._files.get(path)
        if file is None:
            await fail(send, failure(_missing(path)))
            return
        headers = {"content-type": file.media, "etag": file.tag, "cache-control": file.cache}
        if header(scope, b"if-none-match") == file.tag:
            await answer(send, 304, b"", headers)
            return
        try:
            body = await asyncio.to_thread(file.path.read_bytes)
        except OSError:
            await fail(send, failure(_missing(path)))
            return
        await answer(send, 200, body, headers)


def _missing(path: str) -> RequestError:
    return RequestError(404, "not_found", f"there is nothing at {path[:200]!r}", hint="see /openapi.json")


def _files(root: Path) -> Mapping[str, File]:
    files: dict[str, File] = {}
    for path in sorted(root.rglob("*"))[:MAX_FILES] if root.is_dir() else []:
        if path.is_file():
            files["/" + path.relative_to(root).as_posix()] = _file(root, path)
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files


def _file(root: Path, path: Path) -> File:
    media = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = media.startswith("text/") or media in ("application/javascript", "application/json", "image/svg+xml")
    tag = hashlib.sha256(path.read_bytes()).hexdigest()[:20]
    # Vite puts a hash of the content into the names under assets/.
    forever = path.relative_to(root).parts[0] == "assets"
    cache = "public, max-age=31536000, immutable" if forever else "no-cache"
    return File(path, f"{media}; charset=utf-8" if text else media, f'"{tag}"', cache)
