"""A mail server for the demo: it takes every mail and delivers none.

It speaks as much SMTP (RFC 5321) as a sender needs, on the loopback interface.
"""

from __future__ import annotations

import threading
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import cast


class Mailbox(ThreadingTCPServer):
    """A server on a free port, in a thread of its own; what it was given lies in `letters`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.letters: list[EmailMessage] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """The address, as ``gdprdb outbox send --smtp`` takes it."""
        return f"smtp+plain://127.0.0.1:{self.server_address[1]}"

    def empty(self) -> list[EmailMessage]:
        """Take out what has arrived."""
        letters, self.letters = self.letters, []
        return letters

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class _Session(StreamRequestHandler):
    """One client, from its greeting to its leave."""

    def handle(self) -> None:
        self._say("220 ready")
        while line := self.rfile.readline():
            match line[:4].strip().upper():
                case b"EHLO":
                    # addresses in any script (RFC 6531)
                    self._say("250-ready\r\n250-8BITMIME\r\n250 SMTPUTF8")
                case b"DATA":
                    self._say("354 go on")
                    letter = BytesParser(policy=default).parsebytes(self._data())
                    cast(Mailbox, self.server).letters.append(letter)
                    self._say("250 taken")
                case b"QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def _data(self) -> bytes:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            # a leading dot was doubled, to tell it from the end
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _say(self, reply: str) -> None:
        self.wfile.write(f"{reply}\r\n".encode())
