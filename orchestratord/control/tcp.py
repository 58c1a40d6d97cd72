"""The listening TCP socket of `http.bind`."""

from __future__ import annotations

import socket

from orchestratord.config.listening import parse_bind
from orchestratord.errors import ConfigError, OrchestratordError, Problem

BACKLOG = 128


class TcpListener:
    """A listening TCP socket."""

    def __init__(self, bind: str) -> None:
        """Listen at an `http.bind`.

        Raises:
            ConfigError: this user may not listen there.
            OrchestratordError: something else is in the way, such as another program.
        """
        address, port = parse_bind(bind)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        # asyncio has what is accepted send at once only where the protocol is named: else the body
        # of an answer waits until its head is acknowledged, which a client may put off for 40 ms.
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        self.socket = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind((str(address), port))
            self.socket.listen(BACKLOG)
        except OSError as error:
            self.socket.close()
            message = f"cannot listen at {bind}: {error.strerror or error}"
            if isinstance(error, PermissionError):
                problem = Problem(message, file="orchestratord.yaml", key="http.bind")
                raise ConfigError([problem]) from error
            raise OrchestratordError(f"http.bind: {message}") from error
        self.address, self.port = self.socket.getsockname()[:2]
        """Where it listens, as the system has it."""

    @property
    def url(self) -> str:
        """Where it listens, for people."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()
