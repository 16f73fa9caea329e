"""The request body."""

from __future__ import annotations

from collections.abc import Iterator

from tests.http.cases.make import accept, chunked, get, post, printable, refuse
from tests.http.judge import Case


def cases() -> Iterator[Case]:
    yield from lengths()
    yield from codings()
    yield from chunks()
    yield from ends()


def lengths() -> Iterator[Case]:
    yield accept("length-0", post(b"", b"Content-Length: 0"), "/x", body="", env={"CONTENT_LENGTH": "0"})
    yield accept("length-5", post(b"hello", b"Content-Length: 5"), "/x", body="hello", env={"CONTENT_LENGTH": "5"})
    yield accept("length-zeros", post(b"hello", b"Content-Length: 0005"), "/x", body="hello")
    yield accept("length-get", get(b"Content-Length: 5") + b"hello", "/x", body="hello")
    yield accept(
        "length-1.0", post(b"hello", b"Content-Length: 5", line=b"POST /x HTTP/1.0"), body="hello", conn="close"
    )
    yield accept("length-none", get(line=b"POST /x HTTP/1.1"), "/x", body="", must_not_env=("CONTENT_LENGTH",))
    looks = b"GET /inside HTTP/1.1\r\nHost: h\r\n\r\n"
    raw = post(looks, b"Content-Length: %d" % len(looks))
    yield accept("length-body-looks-like-a-request", raw, "/x", body=looks.decode(), must_not_serve="/inside")
    binary = bytes(range(256)) * 8
    raw = post(binary, b"Content-Length: %d" % len(binary))
    yield accept("length-binary", raw, "/x", body=binary.decode("latin-1"))
    for value in (
        *b"+5 -5 -0 5_0 0x5 5,5 5; 5.0 5. 1e1 five '5'".split(),
        b"",
        b"5, 5",
        b"5 5",
        b"\xb2",
        b"\xa05",
        b"5\xa0",
        b"\x855",
        "\u0665".encode(),
        b"9" * 30,
        b"0" * 30 + b"5",
    ):
        raw = post(b"hello", b"Content-Length: " + value)
        yield refuse(f"length-{printable(value) or 'empty'}", raw, 400)
    yield refuse("length-over-limit", post(b"", b"Content-Length: %d" % ((1 << 30) + 1)), 413)
    yield refuse("length-bad-with-get", get(b"Content-Length: x"), 400)
    yield refuse("length-folded", post(b"hello", b"Content-Length:", b" 5"), 400)


def codings() -> Iterator[Case]:
    body = b"5\r\nhello\r\n0\r\n\r\n"
    for value in (b"chunked", b"Chunked", b"CHUNKED", b" \tchunked\t "):
        raw = post(body, b"Transfer-Encoding:" + value)
        yield accept(
            f"coding-{printable(value)}",
            raw,
            "/x",
            body="hello",
            env={"CONTENT_LENGTH": "5"},
            must_not_env=("HTTP_TRANSFER_ENCODING",),
        )
    for value in (b"gzip", b"identity", b"xchunked", b"chunkedx", b"chunke", b"gzip, chunked", b"chunked, gzip"):
        yield refuse(f"coding-{printable(value)}", post(body, b"Transfer-Encoding: " + value), 501)
    for value in (b"chunked, chunked", b"chunked,identity", b"identity, chunked", b"a\t,\tb"):
        yield refuse(f"coding-{printable(value)}", post(body, b"Transfer-Encoding: " + value), 501)
    for value in (
        b"",
        b",",
        b"chunked,",
        b",chunked",
        b"chun ked",
        b'"chunked"',
        b"chunked\xa0",
        b"\xa0chunked",
        b"(chunked)",
    ):
        yield refuse(f"coding-{printable(value) or 'empty'}", post(body, b"Transfer-Encoding: " + value), 400)
    for value in (
        b"chunked\x0b",
        b"\x0cchunked",
        b"chunked\x00",
        b"\x1cchunked",
        b"\x85chunked",
        b"chunked;q=1",
        b"c:d",
    ):
        yield refuse(f"coding-{printable(value)}", post(body, b"Transfer-Encoding: " + value), 400)
    chunks = b"Transfer-Encoding: chunked"
    yield refuse("coding-twice", post(body, chunks, chunks), 501, 400)
    yield refuse("coding-twice-gzip", post(body, b"Transfer-Encoding: gzip", chunks), 501, 400)
    yield refuse("coding-twice-empty", post(body, b"Transfer-Encoding:", chunks), 501, 400)
    for name, fields in {
        "after": (chunks, b"Content-Length: 5"),
        "before": (b"Content-Length: 5", chunks),
        "zero": (chunks, b"Content-Length: 0"),
        "right": (chunks, b"Content-Length: %d" % len(body)),
        "empty": (chunks, b"Content-Length:"),
        "malformed": (chunks, b"Content-Length: x"),
        "gzip": (b"Transfer-Encoding: gzip", b"Content-Length: 5"),
        "odd": (b"Transfer-Encoding: \xa0chunked", b"Content-Length: 5"),
    }.items():
        yield refuse(f"coding-and-length-{name}", post(body, *fields), 400)
    old = b"POST /x HTTP/1.0"
    yield refuse("coding-1.0", post(body, chunks, line=old), 400)
    yield refuse("coding-1.0-keep-alive", post(body, chunks, b"Connection: keep-alive", line=old), 400)
    yield refuse("coding-1.0-gzip", post(body, b"Transfer-Encoding: gzip", line=old), 400)
    yield refuse("coding-1.0-length", post(body, chunks, b"Content-Length: 5", line=old), 400)
    yield accept("coding-te", get(b"TE: chunked, trailers"), "/x", body="")


def chunks() -> Iterator[Case]:
    last = b"0\r\n\r\n"
    for name, rest, body in (
        ("none", last, ""),
        ("one", b"5\r\nhello\r\n" + last, "hello"),
        ("two", b"2\r\nhe\r\n3\r\nllo\r\n" + last, "hello"),
        ("hex", b"a\r\n0123456789\r\nA\r\n0123456789\r\n" + last, "0123456789" * 2),
        ("zeros", b"0005\r\nhello\r\n000\r\n\r\n", "hello"),
        ("sixteen-digits", b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n", "hello"),
        ("data-is-crlf", b"4\r\n\r\n\r\n\r\n" + last, "\r\n\r\n"),
        ("data-looks-like-the-last", b"5\r\n0\r\n\r\n\r\n" + last, "0\r\n\r\n"),
        ("extension", b"5;a\r\nhello\r\n0;b\r\n\r\n", "hello"),
        ("extension-value", b'5;a=b;c="d e"\r\nhello\r\n' + last, "hello"),
        ("extension-blanks", b"5; a = b \t\r\nhello\r\n" + last, "hello"),
        ("extension-empty", b"5;\r\nhello\r\n" + last, "hello"),
        ("extension-obs-text", b"5;\xe9\r\nhello\r\n" + last, "hello"),
        ("extension-long", b"5;" + b"a" * 1000 + b"\r\nhello\r\n" + last, "hello"),
        ("trailer", b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", "hello"),
        ("trailers", b"5\r\nhello\r\n0\r\nX-T: 1\r\nX-T: 2\r\nX_T: 3\r\n\r\n", "hello"),
        ("many", b"1\r\na\r\n" * 2000 + last, "a" * 2000),
    ):
        yield accept(f"chunk-{name}", chunked(rest), "/x", body=body, must_not_env=("HTTP_X_T",))
    for name in (b"Content-Length: 3", b"Transfer-Encoding: gzip", b"Host: evil", b"Authorization: x", b"Proxy: x"):
        raw = chunked(b"5\r\nhello\r\n0\r\n" + name + b"\r\n\r\n")
        key = "HTTP_" + name.partition(b":")[0].decode().upper().replace("-", "_")
        environ = {"HTTP_HOST": "h", "CONTENT_LENGTH": "5"}
        absent = () if key == "HTTP_HOST" else (key,)
        yield accept(f"trailer-{printable(name)}", raw, "/x", body="hello", env=environ, must_not_env=absent)

    for size in (
        *b"0x5 +5 -5 5_0 5.0 5,5 g five ;a 00000000000000005 10000000000000000 5;a".split(),
        b"",
        b" 5",
        b"5 ",
        b"5\t",
        b"5 ;a",
        b"5 5",
        b"\xb2",
        b"\xa05",
        b"5\x0b",
        b"5\x00",
        b"5;a\x00",
        b"5;a\x0b",
        b"5;a\rb",
        b"5\r",
        b"\r\n5",
    ):
        yield refuse(f"chunk-size-{printable(size) or 'empty'}", chunked(size + b"\r\nhello\r\n" + last), 400)
    for name, rest in (
        ("size-lf", b"5\nhello\r\n" + last),
        ("size-cr", b"5\rhello\r\n" + last),
        ("extension-lf", b"5;a\nhello\r\n" + last),
        ("data-lf", b"5\r\nhello\n" + last),
        ("data-cr", b"5\r\nhello\r" + last),
        ("data-crcr", b"5\r\nhello\r\r\n" + last),
        ("data-none", b"5\r\nhello" + last),
        ("data-long", b"5\r\nhello!\r\n" + last),
        ("data-short", b"5\r\nhell\r\n" + last),
        ("data-lfcr", b"5\r\nhello\n\r" + last),
        ("last-lf", b"5\r\nhello\r\n0\n\r\n"),
        ("last-lf-end", b"5\r\nhello\r\n0\r\n\n"),
        ("last-cr-end", b"5\r\nhello\r\n0\r\n\r\r\n"),
        ("last-malformed", b"5\r\nhello\r\n0x\r\n\r\n"),
        ("last-with-data", b"5\r\nhello\r\n0\r\nhello\r\n"),
        ("trailer-lf", b"0\r\nX: y\n\r\n"),
        ("trailer-cr", b"0\r\nX: y\rZ: z\r\n\r\n"),
        ("trailer-folded", b"0\r\nX: y\r\n z\r\n\r\n"),
        ("trailer-space-before-colon", b"0\r\nX : y\r\n\r\n"),
        ("trailer-without-colon", b"0\r\nX\r\n\r\n"),
        ("trailer-without-name", b"0\r\n: y\r\n\r\n"),
        ("trailer-nul", b"0\r\nX: \x00\r\n\r\n"),
        ("trailer-blank-first", b"0\r\n X: y\r\n\r\n"),
        ("extension-too-long", b"5;" + b"a" * 2000 + b"\r\nhello\r\n" + last),
        ("extensions-too-many", (b"1;" + b"a" * 900 + b"\r\na\r\n") * 6 + last),
        ("extensions-small-too-many", b"1;a\r\na\r\n" * 3000 + last),
    ):
        yield refuse(f"chunk-{name}", chunked(rest), 400)
    yield refuse("chunk-extension-no-end", chunked(b"5;" + b"a" * 70000), 400)
    yield refuse("chunk-over-limit", chunked(b"%x\r\n" % ((1 << 30) + 1)), 413)
    yield refuse("chunk-second-over-limit", chunked(b"1\r\na\r\n%x\r\n" % (1 << 30)), 413)
    yield refuse("trailer-too-long", chunked(b"0\r\nX: " + b"a" * 8188 + b"\r\n\r\n"), 431)
    yield refuse("trailer-too-many", chunked(b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n"), 431)
    yield refuse("trailer-too-large", chunked(b"0\r\n" + (b"X: " + b"a" * 8000 + b"\r\n") * 9 + b"\r\n"), 431)
    yield accept("trailer-limit", chunked(b"0\r\n" + b"X: y\r\n" * 100 + b"\r\n"), "/x", body="")


def ends() -> Iterator[Case]:
    """The client closes its side in the middle of a request: the application must not be called."""
    for name, raw in {
        "line": b"GET /x",
        "head": b"GET /x HTTP/1.1\r\nHost: h\r\n",
        "length": post(b"hell", b"Content-Length: 5"),
        "no-body": post(b"", b"Content-Length: 5"),
        "chunk": chunked(b"5\r\nhel"),
        "chunk-size": chunked(b"5"),
        "chunk-end": chunked(b"5\r\nhello"),
        "no-last-chunk": chunked(b"5\r\nhello\r\n"),
        "last-chunk": chunked(b"5\r\nhello\r\n0\r\n"),
        "trailer": chunked(b"5\r\nhello\r\n0\r\nX: y\r\n"),
        "expecting": post(b"", b"Content-Length: 5", b"Expect: 100-continue"),
    }.items():
        yield Case(
            id=f"ends-in-{name}",
            raw=raw,
            expect="reject",
            status=(400,),
            conn="close",
            then="shutdown_wr",
            app_must_not_complete=True,
        )
