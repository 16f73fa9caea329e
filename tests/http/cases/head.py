"""The request head."""

from __future__ import annotations

from collections.abc import Iterator

from tests.http.cases.make import CONTROLS, accept, get, post, printable, refuse
from tests.http.judge import Case


def cases() -> Iterator[Case]:
    yield from request_lines()
    yield from methods()
    yield from targets()
    yield from line_ends()
    yield from fields()
    yield from hosts()
    yield from limits()
    yield from connections()
    yield from expectations()
    yield from strangers()


def request_lines() -> Iterator[Case]:
    yield accept("line-plain", get(), "/x", method="GET", query="", env={"SERVER_PROTOCOL": "HTTP/1.1"})
    for name, line in {
        "two-spaces-first": b"GET  /x HTTP/1.1",
        "two-spaces-second": b"GET /x  HTTP/1.1",
        "leading-space": b" GET /x HTTP/1.1",
        "trailing-space": b"GET /x HTTP/1.1 ",
        "trailing-tab": b"GET /x HTTP/1.1\t",
        "tab-first": b"GET\t/x HTTP/1.1",
        "tab-second": b"GET /x\tHTTP/1.1",
        "four-words": b"GET /x y HTTP/1.1",
        "no-method": b"/x HTTP/1.1",
        "no-target": b"GET  HTTP/1.1",
        "only-method": b"GET",
        "only-space": b" ",
        "colon": b"Host: h",
    }.items():
        yield refuse(f"line-{name}", get(line=line), 400)
    # One may say that this is HTTP/0.9, or that it is nothing.
    yield refuse("line-no-version", get(line=b"GET /x"), 400, 505)
    yield refuse("line-version-empty", get(line=b"GET /x "), 400)
    for version in b"http/1.1 Http/1.1 HTTP/1 HTTP/1. HTTP/.1 HTTP/1.1.1 HTTP/1.10 HTTP/11".split():
        yield refuse(f"version-{printable(version)}", get(line=b"GET /x " + version), 400)
    for version in (
        b"HTTP1.1",
        b"HTTP /1.1",
        b"HTTP\\1.1",
        b"HTTPS/1.1",
        b"XHTTP/1.1",
        b"HTTP/a.b",
        b"HTTP/+1.1",
        b"1.1",
    ):
        yield refuse(f"version-{printable(version)}", get(line=b"GET /x " + version), 400)
    # U+0661, a digit to str.isdigit() and none to HTTP.
    yield refuse("version-arabic-digit", get(line="GET /x HTTP/1.\u0661".encode()), 400)
    for version in (b"HTTP/0.9", b"HTTP/0.0", b"HTTP/2.0", b"HTTP/2.1", b"HTTP/3.0", b"HTTP/9.9"):
        yield refuse(f"version-{printable(version)}", get(line=b"GET /x " + version), 505)
    for minor in range(2, 10):
        raw = get(line=b"GET /x HTTP/1.%d" % minor)
        yield accept(f"version-1.{minor}", raw, "/x", env={"SERVER_PROTOCOL": "HTTP/1.1"})
    yield refuse("version-1.2-without-host", get(line=b"GET /x HTTP/1.2", host=None), 400)

    yield accept("blank-one", b"\r\n" + get(), "/x")
    yield accept("blank-three", b"\r\n\r\n\r\n" + get(), "/x")
    yield refuse("blank-many", b"\r\n" * 40 + get(), 400)
    yield refuse("blank-lf", b"\n" + get(), 400)
    yield refuse("blank-cr", b"\r" + get(), 400)
    yield refuse("blank-space", b" \r\n" + get(), 400)


def methods() -> Iterator[Case]:
    for method in (
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "FOO",
        "PROPFIND",
        "M-SEARCH",
        "A1",
        "!#$",
    ):
        yield accept(f"method-{method}", get(line=method.encode() + b" /x HTTP/1.1"), "/x", method=method)
    yield accept("method-HEAD", get(line=b"HEAD /x HTTP/1.1"), method="HEAD", no_response_body=True)
    for method in (
        *b"get Get geT post G@T GET: (GET) G,T {}".split(),
        b"GET\x00",
        b"G\xc9T",
        b'"GET"',
    ):
        yield refuse(f"method-{printable(method)}", get(line=method + b" /x HTTP/1.1"), 400)
    for target in (b"h:443", b"/x", b"http://h/", b"[::1]:443", b"*"):
        raw = get(line=b"CONNECT " + target + b" HTTP/1.1")
        yield refuse(f"connect-{printable(target)}", raw, 501, 405)
    yield refuse("connect-1.0", get(line=b"CONNECT h:443 HTTP/1.0"), 501, 405)
    yield refuse("connect-with-body", get(b"Content-Length: 5", line=b"CONNECT h:443 HTTP/1.1") + b"hello", 501, 405)


def targets() -> Iterator[Case]:
    def with_target(target: bytes, method: bytes = b"GET") -> bytes:
        return get(line=method + b" " + target + b" HTTP/1.1")

    for target, path, query in (
        (b"/", "/", ""),
        (b"/?", "/", ""),
        (b"/a?b", "/a", "b"),
        (b"/a?b?c", "/a", "b?c"),
        (b"/a?b=%20", "/a", "b=%20"),
        (b"/a;b=c", "/a;b=c", ""),
        (b"//evil/x", "//evil/x", ""),
        (b"///", "///", ""),
        (b"/a/../b", "/a/../b", ""),
        (b"/%2e%2e/x", "/../x", ""),
        (b"/%2f", "//", ""),
        (b"/%3f", "/?", ""),
        (b"/%25", "/%", ""),
        (b"/%e9%C3%A9", "/é\xc3\xa9", ""),
        (b"/%", "/%", ""),
        (b"/%zz", "/%zz", ""),
        (b"/%u0041", "/%u0041", ""),
        (b"/+", "/+", ""),
        (b"/http://h/", "/http://h/", ""),
        (b"/@:", "/@:", ""),
        (b'/"', '/"', ""),
        (b"/<>", "/<>", ""),
        (b"/[]", "/[]", ""),
        (b"/{|}", "/{|}", ""),
        (b"/\\", "/\\", ""),
        (b"/^`", "/^`", ""),
        (b'/x?["<>{|}^`\\', "/x", '["<>{|}^`\\'),
        (b"http://h/y?z", "/y", "z"),
        (b"http://h?z", "/", "z"),
        (b"http://h", "/", ""),
        (b"HTTP://h/y", "/y", ""),
        (b"https://h/y", "/y", ""),
        (b"http://h//y", "//y", ""),
        (b"http://h/http://g/", "/http://g/", ""),
    ):
        yield accept(
            f"target-{printable(target)}", with_target(target), path, query=query, env={"RAW_URI": target.decode()}
        )
    for authority in b"other other:81 other: 1.2.3.4 [::1] [::1]:81 [::ffff:1.2.3.4] a_b a%41".split():
        raw = with_target(b"http://" + authority + b"/y")
        yield accept(f"target-replaces-host-{printable(authority)}", raw, "/y", env={"HTTP_HOST": authority.decode()})
    yield refuse("target-absolute-without-host", get(line=b"GET http://h/ HTTP/1.1", host=None), 400)
    yield accept(
        "target-absolute-1.0",
        get(line=b"GET http://g/y HTTP/1.0", host=None),
        "/y",
        conn="close",
        env={"HTTP_HOST": "g"},
    )

    yield accept("target-star", with_target(b"*", b"OPTIONS"), "*", method="OPTIONS")
    for method in (b"GET", b"POST", b"HEAD", b"FOO"):
        yield refuse(f"target-star-{method.decode()}", with_target(b"*", method), 400)
    yield refuse("target-star-more", with_target(b"*x", b"OPTIONS"), 400)
    for target in (
        *(
            b"x h:443 h/x ?x . # /# /x#y /x?y#z http:/x http:x http: http:// http:///x http://?x http://:80/ "
            b"http://h#f ftp://h/ file:///x javascript:x urn:x ://h/ ws://h/ http://u@h/ http://u:p@h/ http://@h/ "
            b"http://h:x/ http://h:-1/ http://h:65536/ http://h:80:80/ http://h:8a/ http://[::1/ http://::1/ "
            b"http://[]/ http://[::1]x/ http://[g::]/ http://[1.2.3.4]/ http://[fe80::1%25eth0]/ http://h,g/ "
            b"http://h%/ http://h%4/ http://h<>/"
        ).split(),
        b"http://h\\g/",
        b"/caf\xc3\xa9",
        b"/\xe9",
        b"/\x80",
        b"/\xff",
        b"http://\xe9/",
    ):
        yield refuse(f"target-{printable(target)}", with_target(target), 400)
    for control in CONTROLS:
        yield refuse(f"target-control-{printable(control)}", with_target(b"/a" + control + b"b"), 400)


def line_ends() -> Iterator[Case]:
    plain = get(b"X-A: 1", b"X-B: 2")
    yield refuse("ends-lf", plain.replace(b"\r\n", b"\n"), 400)
    yield refuse("ends-cr", plain.replace(b"\r\n", b"\r"), 400)
    yield refuse("ends-crcrlf", plain.replace(b"\r\n", b"\r\r\n"), 400)
    yield refuse("ends-lfcr", plain.replace(b"\r\n", b"\n\r"), 400)
    for number in range(plain.count(b"\r\n")):
        for name, end in (("lf", b"\n"), ("cr", b"\r"), ("crcrlf", b"\r\r\n"), ("crlflf", b"\r\n\n")):
            parts = plain.split(b"\r\n")
            raw = b"\r\n".join(parts[: number + 1]) + end + b"\r\n".join(parts[number + 1 :])
            # What ends with CR LF LF has an empty line too many, or too few: it is for the next request then.
            if not raw.startswith(plain[:-2] + b"\r\n\n"):
                yield refuse(f"ends-line-{number}-{name}", raw, 400)
    for place, raw in (
        ("line", b"GET /x\x00 HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("name", get(b"X\x00: 1")),
        ("value", get(b"X: \x00")),
        ("host", get(host=b"Host: h\x00")),
        ("first", b"\x00" + get()),
        ("between", get(b"\x00")),
    ):
        yield refuse(f"nul-{place}", raw, 400)


def fields() -> Iterator[Case]:
    for name in (b"X", b"x-a", b"!#$%&'*+-.^`|~", b"0", b"X" * 100):
        key = "HTTP_" + name.decode().upper().replace("-", "_")
        yield accept(f"field-name-{printable(name)}", get(name + b": v"), "/x", env={key: "v"})
    for line in (
        b": v",
        b" : v",
        b"X v",
        b"X",
        b"X : v",
        b"X\t: v",
        b" X: v",
        b"\tX: v",
        b"X Y: v",
        b"X\xa0: v",
        b"\xefX: v",
        b"(X): v",
        b"X,Y: v",
        b"X;Y: v",
        b"X/Y: v",
        b"X=Y: v",
        b"X@Y: v",
        b"[X]: v",
        b"X\\Y: v",
        b'"X": v',
        b"{X}: v",
        b"<X>: v",
        b"X?: v",
    ):
        yield refuse(f"field-{printable(line)}", get(line), 400)
        yield refuse(f"field-first-{printable(line)}", get(line, b"Host: h", host=None), 400)
    for control in CONTROLS:
        yield refuse(f"field-name-control-{printable(control)}", get(b"X" + control + b"Y: v"), 400)
        if control != b"\t":
            yield refuse(f"field-value-control-{printable(control)}", get(b"X: a" + control + b"b"), 400)
    yield refuse("field-folded-space", get(b"X: a", b" b"), 400)
    yield refuse("field-folded-tab", get(b"X: a", b"\tb"), 400)
    yield refuse("field-folded-empty", get(b"X: a", b" "), 400)
    yield refuse("field-folded-value", get(b"X:", b" a"), 400)

    for name, value, wanted in (
        ("empty", b"", ""),
        ("blank", b" \t ", ""),
        ("tab-inside", b"a\tb", "a\tb"),
        ("spaces", b"  a  b  ", "a  b"),
        ("tabs", b"\ta\t", "a"),
        ("obs-text", b"caf\xe9 \x80\xff", "caf\xe9 \x80\xff"),
        ("utf-8", "café".encode(), "cafÃ©"),
        # str.strip() takes these; SP and HTAB are all that is to be taken.
        ("nbsp", b"\xa0a\xa0", "\xa0a\xa0"),
        ("nel", b"\x85a\x85", "\x85a\x85"),
        ("colons", b"a:b::", "a:b::"),
        ("printable", bytes(range(0x21, 0x7F)), bytes(range(0x21, 0x7F)).decode()),
    ):
        yield accept(f"field-value-{name}", get(b"X-A:" + value), "/x", env={"HTTP_X_A": wanted})

    for name in (b"X_A", b"X_Forwarded_For", b"Content_Length", b"Transfer_Encoding", b"_", b"X-A_B", b"CONTENT_TYPE"):
        key = name.decode().upper().replace("-", "_")
        raw = get(name + b": 7")
        yield accept(f"field-underscore-{name.decode()}", raw, "/x", must_not_env=(key, "HTTP_" + key))
    yield refuse("field-underscore-host", get(host=b"Ho_st: h"), 400)
    yield accept(
        "field-underscore-beside-dash",
        get(b"X-A: honest", b"X_A: shadow"),
        "/x",
        env={"HTTP_X_A": "honest"},
    )
    for name in (b"Proxy", b"PROXY", b"proxy"):
        yield accept(f"field-{name.decode()}", get(name + b": evil"), "/x", must_not_env=("HTTP_PROXY",))
    yield accept("field-proxy-connection", get(b"Proxy-Connection: x"), "/x", env={"HTTP_PROXY_CONNECTION": "x"})

    for name, first, second, key, wanted in (
        ("cookie", b"Cookie: a=1", b"Cookie: b=2", "HTTP_COOKIE", "a=1; b=2"),
        ("cookie-case", b"cookie: a=1", b"COOKIE: b=2", "HTTP_COOKIE", "a=1; b=2"),
        ("accept", b"Accept: a", b"Accept: b", "HTTP_ACCEPT", "a, b"),
        ("empty", b"X-A:", b"X-A: b", "HTTP_X_A", ", b"),
        (
            "forwarded",
            b"X-Forwarded-For: 1.1.1.1",
            b"X-Forwarded-For: 2.2.2.2",
            "HTTP_X_FORWARDED_FOR",
            "1.1.1.1, 2.2.2.2",
        ),
    ):
        yield accept(f"repeated-{name}", get(first, b"X: y", second), "/x", env={key: wanted})
    for name in (b"Content-Type", b"Authorization", b"Host", b"Content-Length"):
        same, other = name + b": 5", name + b": 6"
        host = None if name == b"Host" else b"Host: h"
        yield refuse(f"repeated-{name.decode()}-same", get(same, same, host=host), 400)
        yield refuse(f"repeated-{name.decode()}-other", get(same, other, host=host), 400)
        yield refuse(f"repeated-{name.decode()}-case", get(same, other.upper(), host=host), 400)


def hosts() -> Iterator[Case]:
    yield refuse("host-none", get(host=None), 400)
    yield accept(
        "host-none-1.0", get(line=b"GET /x HTTP/1.0", host=None), "/x", conn="close", must_not_env=("HTTP_HOST",)
    )
    yield refuse("host-twice-1.0", get(b"Host: h", line=b"GET /x HTTP/1.0"), 400)
    yield refuse("host-bad-1.0", get(line=b"GET /x HTTP/1.0", host=b"Host: a b"), 400)
    for host in (
        *(
            b"h H.Example h:80 h: h:0 h:65535 1.2.3.4:1 [::1] [::1]:8000 [2001:DB8::1] [::ffff:1.2.3.4] my_app:8000 "
            b"xn--caf-dma.example a%2Db a. -"
        ).split(),
    ):
        yield accept(f"host-{printable(host)}", get(host=b"Host: " + host), "/x", env={"HTTP_HOST": host.decode()})
    yield accept("host-blanks", get(host=b"Host: \t h \t"), "/x", env={"HTTP_HOST": "h"})
    for host in (
        *(
            b"a,b u@h u:p@h h/ h/x h?x h#x http://h :80 : h:x h:-1 h:+1 h:65536 h:99999 h:100000 h:80:80 h::80 ::1 "
            b"[::1 ::1] [] []:80 [::1]80 [::1]:x [::1]x [:::1] [1.2.3.4] [fe80::1%eth0] [h] [[::1]] h% h%2 h%zz <h> "
            b"h|g h^ `h` {h}"
        ).split(),
        b"",
        b" ",
        b"a b",
        b"a\tb",
        b"a, a",
        b"h:8 0",
        b"h\\g",
        b'"h"',
        b"h\xe9",
        b"\xff",
        "h:\u0668\u0660".encode(),
    ):
        yield refuse(f"host-{printable(host)}", get(host=b"Host: " + host), 400)


def limits() -> Iterator[Case]:
    """The defaults; tests/http/test_parser.py has them with others."""
    fill = 8190 - len(b"GET / HTTP/1.1")
    yield accept("limit-line", get(line=b"GET /" + b"a" * fill + b" HTTP/1.1"), "/" + "a" * fill)
    yield refuse("limit-line-over", get(line=b"GET /" + b"a" * (fill + 1) + b" HTTP/1.1"), 414)
    yield refuse("limit-line-far-over", get(line=b"GET /" + b"a" * 40000 + b" HTTP/1.1"), 414)
    yield refuse("limit-line-no-end", b"A" * 9000, 414, must_not_serve="/smuggled")
    yield accept("limit-field", get(b"X-A: " + b"a" * 8185), "/x", env={"HTTP_X_A": "a" * 8185})
    yield refuse("limit-field-over", get(b"X-A: " + b"a" * 8186), 431)
    yield accept("limit-field-name", get(b"X" * 8189 + b":"), "/x", env={"HTTP_" + "X" * 8189: ""})
    yield refuse("limit-field-name-over", get(b"X" * 8190 + b":"), 431)
    yield refuse("limit-field-no-end", get(b"X: " + b"a" * 9000)[:-4], 431)
    yield accept("limit-fields", get(*(b"X-%d: v" % n for n in range(99))), "/x", env={"HTTP_X_98": "v"})
    yield refuse("limit-fields-over", get(*(b"X-%d: v" % n for n in range(100))), 431)
    yield refuse("limit-fields-dropped-count", get(*(b"X_%d: v" % n for n in range(100))), 431)
    # 64 KiB from the request line to the empty line, both with it.
    some = get(*(b"X-%d: " % n + b"a" * 8000 for n in range(8)))
    fill = 64 * 1024 - len(some) - len(b"Y: \r\n")
    whole = some[:-2] + b"Y: " + b"a" * fill + b"\r\n\r\n"
    assert len(whole) == 64 * 1024
    yield accept("limit-head", whole, "/x")
    yield refuse("limit-head-over", whole.replace(b"Y: ", b"Y:  "), 431)


def connections() -> Iterator[Case]:
    old = b"GET /x HTTP/1.0"
    yield accept("connection-1.1", get(), "/x", conn="open")
    yield accept("connection-1.0", get(line=old), "/x", conn="close")
    yield accept("connection-1.0-keep-alive", get(b"Connection: Keep-Alive", line=old), "/x", conn="open")
    for value in (
        b"close",
        b"CLOSE",
        b"Close",
        b"foo, close",
        b"close, foo",
        b"close,close",
        b"\tclose\t,x",
        b",close",
    ):
        yield accept(f"connection-{printable(value)}", get(b"Connection: " + value), "/x", conn="close")
    yield accept("connection-two-fields", get(b"Connection: foo", b"Connection: close"), "/x", conn="close")
    yield accept("connection-both", get(b"Connection: keep-alive, close"), "/x", conn="close")
    yield accept("connection-1.0-both", get(b"Connection: keep-alive, close", line=old), "/x", conn="close")
    for value in (b"keep-alive", b"closed", b"x-close", b"close;q=0", b"", b"foo", b"TE", b"\xa0close"):
        yield accept(f"connection-{printable(value) or 'empty'}", get(b"Connection: " + value), "/x", conn="open")
    for fields in (
        (b"Connection: Upgrade", b"Upgrade: websocket"),
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        (b"Upgrade: h2c",),
        (b"Connection: upgrade",),
    ):
        name = "+".join(printable(line) for line in fields)[:60]
        yield accept(f"upgrade-{name}", get(*fields), "/x", conn="open")
        raw = post(b"hello", b"Content-Length: 5", *fields)
        yield accept(f"upgrade-with-body-{name}", raw, "/x", body="hello", conn="open")
        raw = post(b"5\r\nhello\r\n0\r\n\r\n", b"Transfer-Encoding: chunked", *fields)
        yield accept(f"upgrade-with-chunks-{name}", raw, "/x", body="hello", conn="open")


def expectations() -> Iterator[Case]:
    expect = b"Expect: 100-continue"
    for name, field in (("plain", expect), ("case", b"expect: 100-Continue")):
        yield Case(
            id=f"expect-{name}",
            raw=post(b"", b"Content-Length: 5", field),
            expect="accept",
            method="POST",
            path="/x",
            body="hello",
            conn="open",
            then="send",
            then_data=b"hello",
            interim=(100,),
        )
    yield Case(
        id="expect-chunked",
        raw=post(b"", b"Transfer-Encoding: chunked", expect),
        expect="accept",
        path="/x",
        body="hello",
        conn="open",
        then="send",
        then_data=b"5\r\nhello\r\n0\r\n\r\n",
        interim=(100,),
    )
    yield accept("expect-without-body", get(expect), "/x", no_100=True)
    yield accept("expect-empty-body", post(b"", b"Content-Length: 0", expect), "/x", no_100=True)
    yield accept(
        "expect-1.0", post(b"hello", b"Content-Length: 5", expect, line=b"POST /x HTTP/1.0"), "/x", body="hello",
        no_100=True, conn="close",
    )  # fmt: skip
    for value in (b"", b"200-ok", b"100", b"100-continue, foo", b"100-continue;q=1", b"100 continue", b"x=y"):
        raw = post(b"hello", b"Content-Length: 5", b"Expect: " + value)
        yield refuse(f"expect-other-{printable(value)}", raw, 417, no_100=True)
    yield refuse("expect-other-without-body", get(b"Expect: foo"), 417)
    yield refuse("expect-twice", post(b"hello", b"Content-Length: 5", expect, expect), 417, no_100=True)
    # Never an invitation before a refusal.
    for name, fields, status in (
        ("too-long", (b"Content-Length: 1099511627776",), 413),
        ("bad-length", (b"Content-Length: x",), 400),
        ("both-framings", (b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
        ("coding", (b"Transfer-Encoding: gzip",), 501),
        ("bad-host", (b"Content-Length: 5", b"Host: again"), 400),
    ):
        yield refuse(f"expect-refused-{name}", post(b"", *fields, expect), status, no_100=True)


def strangers() -> Iterator[Case]:
    """Other protocols that come to the wrong port."""
    for name, raw in {
        "tls": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\n\r\n\r\n",
        "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "proxy-v1": b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
        "proxy-v2": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c",
        "smtp": b"EHLO x\r\n",
        "redis": b"*1\r\n$4\r\nPING\r\n",
        "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
        "rtsp": get(line=b"OPTIONS * RTSP/1.0"),
        "sip": get(line=b"OPTIONS sip:x@h SIP/2.0"),
        "response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "json": b'{"a": 1}\r\n\r\n',
    }.items():
        yield refuse(f"stranger-{name}", raw, 400, 505)
