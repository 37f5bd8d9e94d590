"""The web server of the virtual machine's private network: QEMU starts it for each request, which is on its input.

It serves the files of one directory, whatever directory is asked for, and is run as a script of its own.
"""

from __future__ import annotations

import os
import socket
import sys
from http.server import SimpleHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit


class Files(SimpleHTTPRequestHandler):
    """Answers one request."""

    def translate_path(self, path: str) -> str:
        return os.path.join(self.directory, os.path.basename(unquote(urlsplit(path).path)) or "none")

    def log_message(self, format: str, *args: Any) -> None:
        """There is nobody to tell: what is said goes to the one who asks."""


def answer(directory: str) -> None:
    """Answer the request on file descriptor 0 with a file of the directory."""
    with socket.socket(fileno=os.dup(0)) as connection:
        Files(connection, ("guest", 0), None, directory=directory)  # type: ignore[arg-type]


if __name__ == "__main__":
    answer(sys.argv[1])
