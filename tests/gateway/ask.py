"""Requests of all shapes as bytes, each with the answer that the origin gives to it, for differential tests."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Ask:
    """One request, and what the origin answers to it."""

    method: bytes = b"GET"
    target: bytes = b"/"
    version: bytes = b"1.1"
    hosts: tuple[bytes, ...] = (b"gate",)
    fields: tuple[tuple[bytes, bytes], ...] = ()
    space: bytes = b" "  # after the colons
    body: bytes = b""
    framing: str = ""  # sized, chunked
    chunk: int = 7  # bytes
    extension: bytes = b""
    trailer: bytes = b""
    status: int = 200
    answer_fields: tuple[tuple[bytes, bytes], ...] = ()
    answer: bytes = b"fine"
    answer_framing: str = "sized"  # chunked, close
    answer_version: bytes = b"1.1"
    cut: float = 1.0  # the share of the answer after which the origin breaks off

    def raw(self, name: str) -> bytes:
        """The bytes of the request; ``name`` tells the origin which one it is."""
        lines = [b"%b %b HTTP/%b" % (self.method, self.target, self.version), b"X-Name: " + name.encode()]
        lines += [b"Host:%b%b" % (self.space, host) for host in self.hosts]
        lines += [name + b":" + self.space + value for name, value in self.fields]
        data = b""
        if self.framing == "sized":
            lines.append(b"Content-Length:%b%d" % (self.space, len(self.body)))
            data = self.body
        elif self.framing == "chunked":
            lines.append(b"Transfer-Encoding:%bchunked" % self.space)
            data = chunked(self.body, self.chunk, self.extension) + b"0\r\n" + self.trailer + b"\r\n"
        return b"\r\n".join([*lines, b"", b""]) + data

    @property
    def bodyless(self) -> bool:
        """Whether the answer has no body, whatever its head says."""
        return self.method == b"HEAD" or self.status in (204, 304)

    @property
    def ends(self) -> bool:
        """Whether the origin ends the connection with its answer."""
        return self.answer_version == b"1.0" or self.answer_framing == "close" or self.cut < 1

    def raw_answer(self) -> bytes:
        lines = [b"HTTP/%b %d Because" % (self.answer_version, self.status)]
        lines += [name + b": " + value for name, value in self.answer_fields]
        data = b"" if self.bodyless else self.answer
        if self.status in (204, 304):
            pass
        elif self.answer_framing == "sized":
            lines.append(b"Content-Length: %d" % len(self.answer))
        elif self.answer_framing == "chunked" and self.answer_version == b"1.1":
            lines.append(b"Transfer-Encoding: chunked")
            data = b"" if self.bodyless else chunked(data, 5000) + b"0\r\n\r\n"
        if self.ends and self.cut == 1:
            lines.append(b"Connection: close")
        raw = b"\r\n".join([*lines, b"", b""]) + data
        return raw[: int(len(raw) * self.cut)]


def chunked(data: bytes, size: int, extension: bytes = b"") -> bytes:
    """Without the last chunk."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)


TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABC0129-_.!#$%&'*+^`|~", min_size=1, max_size=8).map(
    lambda text: b"X-" + text.encode()
)
VALUE = st.one_of(
    st.text("ab=;,/\"' \t0()<>[]{}\\", max_size=12).map(lambda text: text.strip().encode()),
    st.binary(min_size=1, max_size=6).map(lambda data: bytes(byte | 0x80 for byte in data)),
    st.just(b"v" * 3000),
)
KNOWN = st.sampled_from(
    [
        *(
            (b"Connection", b"close"),
            (b"Connection", b"keep-alive"),
            (b"Connection", b"X-One, close"),
            (b"X-One", b"1"),
        ),
        *((b"Keep-Alive", b"timeout=5"), (b"TE", b"trailers"), (b"TE", b"gzip;q=1"), (b"Trailer", b"X-Sum")),
        *(
            (b"Proxy-Connection", b"keep-alive"),
            (b"Proxy-Authorization", b"Basic eDp5"),
            (b"Authorization", b"Basic x"),
        ),
        *((b"Upgrade", b"h2c"), (b"Connection", b"upgrade"), (b"HTTP2-Settings", b"AAAA"), (b"Max-Forwards", b"3")),
        *((b"Via", b"1.0 other"), (b"X-Forwarded-For", b"10.0.0.1"), (b"Forwarded", b"for=10.0.0.1")),
        *((b"Cookie", b"a=1"), (b"Cookie", b"b=2; c=3"), (b"Accept", b"text/html"), (b"Accept", b"*/*;q=0.1")),
        *((b"Range", b"bytes=0-1"), (b"If-None-Match", b'"x", W/"y"'), (b"If-Modified-Since", b"yesterday")),
        *((b"Content-Type", b"text/plain"), (b"Content-Encoding", b"gzip"), (b"Accept-Encoding", b"gzip, br")),
        *((b"X-Accel-Redirect", b"/x"), (b"X-HTTP-Method-Override", b"DELETE"), (b"X-Request-Id", b"mine")),
        *((b"Date", b"Sat, 21 Nov 2026 07:28:00 GMT"), (b"User-Agent", b"a (b; c) d/1"), (b"Empty", b"")),
        *((b"Content_Length", b"5"), (b"Transfer_Encoding", b"chunked"), (b"Expect", b"")),
    ]
)
BODY = st.one_of(st.just(b""), st.binary(max_size=40), st.integers(1, 150_000).map(lambda size: b"z" * size))
TARGETS = [
    *(b"/", b"/a/b?c=d&e=%20", b"/%7Ex/;p=1", b"/a//b", b"//a/b", b"/'()*!$&+,;=:@", b"/?", b"/a?", b"/a?b?c", b"/a??"),
    *(b"/%C3%A9", b"/%ff", b"/a%2Fb", b"/a%2fb", b"/a%5Cb", b"/a%3Fb?%3F", b"/a%23b", b"/a%0Ab", b"/a/.", b"/a/./b"),
    *(
        b"/a/%2e/b",
        b"/.a",
        b"/a..b",
        b"/...",
        b"/a;b=c/d",
        b"/?a=/../b",
        b"/?a=http://x/y",
        b"/" + b"p" * 4000,
        b"/%25",
    ),
    *(b"/a%2", b"/%zz", b"/a?%zz", b"/a%00b", b"/a?%00", b"/a/..", b"/../a", b"/a/%2e%2e/b", b"/a%2f..%2fb", b"/a\\b"),
    *(b"http://other/x?y", b"http://other", b"http://other?q=1", b"HTTP://Other:8080/", b"http://other/a%2Fb"),
    *(b"http://u@other/", b"http:///x", b"https://other/x", b"ftp://other/x", b"http://other:/x", b"http://[::1]:80/x"),
    *(
        b"*",
        b"a",
        b"a/b",
        b"?a",
        b"/a#b",
        b'/a"b',
        b"/a<b>",
        b"/{a}|b^`",
        b"/\xc3\xa9",
        b"/a\x7fb",
        b"http://o#f",
        b"/p" * 9000,
    ),
]
HOSTS = [(b"gate",)] * 6 + [
    *((b"Gate:8080",), (b"[::1]:80",), (b"127.0.0.1",), (b"",), (), (b"a", b"b"), (b"a b",), (b"a/b",), (b"a@b",)),
    *((b"a,b",), (b"a_b.c-d.",), (b"a:b",), (b"gate:",), (b"\xe9",)),
]
ANSWER_KNOWN = st.sampled_from(
    [
        *((b"Connection", b"X-Two"), (b"X-Two", b"2"), (b"Keep-Alive", b"timeout=5"), (b"Trailer", b"X-Sum")),
        *((b"Set-Cookie", b"a=1; Path=/"), (b"Set-Cookie", b"b=2"), (b"Cache-Control", b"no-store"), (b"ETag", b'"x"')),
        *((b"Location", b"/elsewhere?x=1"), (b"Content-Type", b"text/plain"), (b"Content-Encoding", b"gzip")),
        *((b"Server", b"origin/1"), (b"Date", b"Sat, 21 Nov 2026 07:28:00 GMT"), (b"Via", b"1.1 inner")),
        *((b"WWW-Authenticate", b"Basic"), (b"Proxy-Authenticate", b"Basic"), (b"Vary", b"*"), (b"Age", b"3")),
        *((b"Upgrade", b"h2c"), (b"X-Request-Id", b"theirs"), (b"Accept-Ranges", b"bytes"), (b"Refresh", b"0; url=/")),
    ]
)

ODD: dict[str, st.SearchStrategy[object]] = {
    "method": st.sampled_from(
        [
            *(b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"),
            *(b"PROPFIND", b"FOO", b"get", b"TRACE", b"CONNECT"),
        ]
    ),
    "target": st.sampled_from(TARGETS),
    "version": st.sampled_from([b"1.0", b"1.0", b"1.2", b"2.0", b"0.9", b"01.1", b"1"]),
    "hosts": st.sampled_from(HOSTS),
    "fields": st.lists(st.one_of(st.tuples(TOKEN, VALUE), KNOWN), max_size=6).map(tuple),
    "space": st.sampled_from([b"", b"\t", b"  \t "]),
    "body": BODY,
    "framing": st.sampled_from(["sized", "chunked"]),
    "chunk": st.integers(1, 70_000),
    "extension": st.sampled_from([b";a=b", b';a="b"', b";a"]),
    "trailer": st.sampled_from([b"X-Sum: 42\r\n", b"Content-Length: 9\r\n"]),
    "status": st.sampled_from([201, 204, 206, 299, 301, 304, 400, 401, 404, 407, 429, 500, 502, 503, 599]),
    "answer_fields": st.lists(st.one_of(st.tuples(TOKEN, VALUE), ANSWER_KNOWN), max_size=5).map(tuple),
    "answer": BODY,
    "answer_framing": st.sampled_from(["chunked", "close"]),
    "answer_version": st.just(b"1.0"),
    "cut": st.sampled_from([0.2, 0.6, 0.95]),
}


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    """Plain but for a few traits, or next to every request would be refused for one of them."""
    traits = draw(st.sets(st.sampled_from(sorted(ODD)), max_size=4))
    given = {trait: draw(ODD[trait]) for trait in sorted(traits)}
    if given.get("body") and "framing" not in given:
        given["framing"] = "sized"
    return Ask(**given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    asks: list[Ask]
    pieces: int  # in which the client sends
    leaves: float  # the share of its bytes after which the client goes; 1: it stays

    def raw(self, name: str) -> bytes:
        return b"".join(ask.raw(f"{name}.{number}") for number, ask in enumerate(self.asks))


CASES = st.builds(
    Case,
    asks=st.lists(asks(), min_size=1, max_size=3),
    pieces=st.sampled_from([1, 1, 1, 2, 7]),
    leaves=st.sampled_from([1.0] * 9 + [0.3, 0.8]),
)
