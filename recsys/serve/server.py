"""The process: it listens, and at its end answers all that it has taken."""

from __future__ import annotations

import asyncio
import signal
import socket

import uvicorn

from recsys.serve.limits import Gate
from recsys.serve.options import ServeOptions

_GRACE = 0.5
"""Seconds in which clients with an open connection are told to close it."""


class Server(uvicorn.Server):
    """Stops in two steps, so that no request meets a closed door.

    Closing a connection on which a client is about to send would fail that request. Hence a signal
    first makes each answer say `Connection: close`, and only then ends the listening.

    Args:
        gate: The application.
        options: Where to listen.
    """

    def __init__(self, gate: Gate, options: ServeOptions) -> None:
        config = uvicorn.Config(
            gate,
            host=options.host,
            port=options.port,
            log_level="warning",
            access_log=False,  # paths and queries are what people typed
            server_header=False,
            timeout_graceful_shutdown=options.drain or None,
            h11_max_incomplete_event_size=65_536,
            ws="none",
        )
        super().__init__(config)
        self._gate = gate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and says where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"serving at http://{shown}:{port} (Ctrl-C or SIGTERM stops it)", flush=True)

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begins to drain; a second signal ends the process without waiting."""
        if self._gate.draining:
            self.force_exit = True
            self.should_exit = True
            return
        self._gate.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Ends the listening once the time of grace is over."""
        if self._gate.draining and not self.should_exit:
            await asyncio.sleep(_GRACE)
            self.should_exit = True
        return await super().on_tick(counter)


def serve(gate: Gate, options: ServeOptions) -> None:
    """Runs until a signal ends it."""
    server = Server(gate, options)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.handle_exit, number, None)
        # Not `serve`, which would hand the signal on after the end and so end the process by it.
        await server._serve()

    asyncio.run(run())
    if not server.started:
        raise SystemExit(2)
