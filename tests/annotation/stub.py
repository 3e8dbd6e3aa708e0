"""A chat endpoint on localhost that does as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Said:
    """What the endpoint replies. drip: seconds between two bytes; wait: seconds before anything."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0


def completion(text: str, usage: dict[str, int] | None = None) -> Said:
    """A chat completion."""
    return Said(json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode())


USAGE = {"prompt_tokens": 1000, "completion_tokens": 50}


def vote(better: str, usage: dict[str, int] | None = USAGE) -> Said:
    """A readable verdict."""
    return completion(json.dumps({"reason": "because", "better": better}), usage)


class Stub:
    """`url` is what --judge-url takes. asked: bodies and headers, in their order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []

    def texts(self) -> list[str]:
        """The text part of each request."""
        return [body["messages"][1]["content"][0]["text"] for body, _ in self.asked]


Answer = Callable[[int, dict[str, Any]], Said]  # the request's number from 0, and its body


@contextmanager
def endpoint(answer: Answer) -> Iterator[Stub]:
    """An endpoint whose every reply is made by `answer`."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(stub.asked)
                stub.asked.append((body | {"path": self.path}, dict(self.headers)))
            said = answer(number, body)
            time.sleep(said.wait)
            try:
                self.send_response(said.status)
                for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in [said.body] if not said.drip else [said.body[i : i + 1] for i in range(len(said.body))]:
                    self.wfile.write(piece)
                    self.wfile.flush()
                    time.sleep(said.drip)
            except (BrokenPipeError, ConnectionResetError):
                pass  # who asked went away

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub = Stub(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
