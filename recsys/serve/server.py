"""The process: it listens, and at its end answers all that it has taken."""

from __future__ import annotations

import asyncio
import signal
import socket

import uvicorn

from recsys.errors import ConfigError
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
            assert sockets is not None
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"serving at http://{shown}:{port} (Ctrl-C or SIGTERM stops it)", flush=True)

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begins to drain; a second signal ends the process without waiting."""
        if self._gate.draining:
            self.force_exit = True
            self.should_exit = True
            return
        self._gate.draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the listening, and lets what was accepted last be read before idle ones close."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(_GRACE / 2)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Ends the listening once the time of grace is over."""
        if self._gate.draining and not self.should_exit:
            await asyncio.sleep(_GRACE)
            self.should_exit = True
        return await super().on_tick(counter)


def bind(options: ServeOptions) -> socket.socket:
    """Takes the address, before a model is opened for it.

    Raises:
        ConfigError: It cannot be taken.
    """
    place = f"host={options.host} port={options.port}"
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM
        )[0]
        held = socket.socket(family, kind, number)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(address)
            held.listen()  # two could bind to one port; only one can listen
        except BaseException:
            held.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{place} cannot be taken: {reason}; give another.") from None
    return held


def serve(gate: Gate, options: ServeOptions, held: socket.socket) -> None:
    """Runs until a signal ends it.

    Args:
        gate: The application.
        options: Of the command.
        held: What `bind` gave.
    """
    server = Server(gate, options)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.handle_exit, number, None)
        # Not `serve`, which would hand the signal on after the end and so end the process by it.
        await server._serve([held])

    asyncio.run(run())
