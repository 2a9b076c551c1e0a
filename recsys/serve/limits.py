"""What each request passes before anything of it is read: key, size, kind, how many there are."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
import traceback
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys import printable
from recsys.serve.metrics import ServiceMetrics
from recsys.serve.options import LOOPBACK, ServeOptions

OPEN = frozenset({"/", "/chat", "/chat.js", "/page.js", "/page.css", "/shared.js", "/health"})
"""Paths that answer without a key: they hold nothing of the model."""

_BODY_SECONDS = 10.0
_HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class _RefusedError(Exception):
    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


class Gate:
    """Refuses what is not to be read, counts all that is answered, and writes no text of users.

    Args:
        app: What answers.
        options: Key and limits.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions, metrics: ServiceMetrics) -> None:
        self.app, self.options, self.metrics = app, options, metrics
        self.draining = False
        self._in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = {**_HEADERS, **({"connection": "close"} if self.draining else {})}
                pairs = [(name.encode(), value.encode()) for name, value in more.items()]
                message = {**message, "headers": [*message.get("headers", []), *pairs]}
            await send(message)

        self._in_work += 1
        self.metrics.in_work.set(self._in_work)
        try:
            self._check(scope)
            whole = await self._read_body(scope, receive)
            await self.app(scope, whole, send_noted)
        except _RefusedError as refused:
            await _send_problem(send_noted, refused)
        except Exception as error:
            # Where it happened, without its message, which may hold what a user sent.
            frames = "".join(traceback.format_tb(error.__traceback__))
            print(f"{frames}{type(error).__name__}", file=sys.stderr, flush=True)
        finally:
            self._in_work -= 1
            self.metrics.in_work.set(self._in_work)
            seconds = time.perf_counter() - start
            route = scope.get("route")
            path = route.path if route is not None else "other"
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            if status >= 500:
                line = f"{scope['method']} {path} {status} {1000 * seconds:.1f} ms"
                print(printable.escape_line(line), flush=True)

    def _check(self, scope: Scope) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        key = self.options.key
        if key is not None and scope["path"] not in OPEN and not _has_key(headers, key):
            raise _RefusedError(
                401,
                "give the key of this service, as in Authorization: Bearer KEY.",
                **{"www-authenticate": "Bearer"},
            )
        if key is None and self.options.host in LOOPBACK:
            # Another site's page may reach a loopback address by a name of its own.
            host = headers.get(b"host", b"localhost").decode("latin-1")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if name.strip("[]") not in LOOPBACK:
                raise _RefusedError(400, "the Host header names another machine.")
        if self._in_work > self.options.limits.concurrency and scope["path"] != "/health":
            raise _RefusedError(429, "the service is busy; try again.", **{"retry-after": "1"})
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                raise _RefusedError(415, "send JSON, with Content-Type: application/json.")
            length = headers.get(b"content-length", b"0")
            if length.isdigit() and int(length[:19]) > self.options.limits.max_body:
                raise self._too_large()

    def _too_large(self) -> _RefusedError:
        most = self.options.limits.max_body
        return _RefusedError(413, f"the body is larger than {most} bytes (max_body).")

    async def _read_body(self, scope: Scope, receive: Receive) -> Receive:
        """Reads the whole body, within its limit and in time; gives what hands it on."""
        body = bytearray()
        if scope["method"] == "POST":
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    more = True
                    while more:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            raise _RefusedError(400, "the body ended early.")
                        body += message.get("body", b"")
                        more = message.get("more_body", False)
                        if len(body) > self.options.limits.max_body:
                            raise self._too_large()
            except TimeoutError:
                raise _RefusedError(408, "the body did not come in time.") from None
        handed = False

        async def hand_on() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return hand_on


def _has_key(headers: Mapping[bytes, bytes], key: str) -> bool:
    """Whether a request has the key; the time that it takes says nothing of the key."""
    given = headers.get(b"x-api-key", b"")
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        given = token.strip()
    return hmac.compare_digest(given, key.encode())


async def _send_problem(send: Send, refused: _RefusedError) -> None:
    body = json.dumps({"error": refused.sentence}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    # What is left of a body that was not read is nobody's next request.
    headers |= {"connection": "close"} if refused.status in (408, 413) else {}
    pairs = [(name.encode(), value.encode()) for name, value in (headers | refused.headers).items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
