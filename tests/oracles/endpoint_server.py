"""A chat endpoint on loopback that behaves as badly as it is told to, and counts what it is asked."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Headers = dict[str, str]


@dataclass(frozen=True)
class Say:
    """One reply: status, body, further headers; `cut` closes the connection in the middle of it.

    `times`: the body goes out so many times over. `drip`: seconds between two bytes of it. `raw`: these bytes and
    nothing else, in place of an answer in HTTP.
    """

    status: int = 200
    body: bytes = b""
    headers: Headers = field(default_factory=dict)
    cut: bool = False
    times: int = 1
    drip: float = 0.0
    raw: bytes | None = None


def completion(content: Any, *, prompt: int = 50, out: int = 10, finish: str = "stop") -> Say:
    """What an OpenAI-compatible server sends; `content`: text, or a value that becomes JSON."""
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    data = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": out},
    }
    return Say(body=json.dumps(data).encode())


@dataclass
class Server:
    """The server while it runs.

    Attributes:
        url: base_url for the config.
        asked: requests by the text of the user message.
        answered: completions by the same that were sent to the end.
        most_at_once: requests in hand at the same time, at the most.
        sent: bytes of bodies that clients have taken.
    """

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    headers: list[Headers] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        with self.lock:
            return self.asked.total()


Reply = Callable[[str, int, dict[str, Any]], Say]


@contextlib.contextmanager
def endpoint(
    reply: Reply, *, delay: float = 0.0, tls: ssl.SSLContext | None = None, models: Say = Say(404)
) -> Iterator[Server]:
    """Serve; `reply` gets the user message, how often that was asked before, and the request; `models` is what a
    request for the list of models gets."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"]
            with server.lock:
                before = server.asked[text]
                server.asked[text] += 1
                server.headers.append({k.lower(): v for k, v in self.headers.items()} | {"path": self.path})
                server.bodies.append(body)
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                time.sleep(delay)
                self.say(reply(text, before, body), text)
            finally:
                with server.lock:
                    server.at_once -= 1

        def do_GET(self) -> None:
            with server.lock:
                server.headers.append({k.lower(): v for k, v in self.headers.items()} | {"path": self.path})
            self.say(models, "")

        def say(self, said: Say, text: str) -> None:
            if said.raw is not None:
                self.close_connection = True
                self.write(said.raw, said.drip)
                return
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body) * said.times + 10 * said.cut))
            self.end_headers()
            for _ in range(said.times):
                self.write(said.body, said.drip)
            self.close_connection = said.cut
            if said.status == 200 and not said.cut:
                with server.lock:
                    server.answered[text] += 1

        def write(self, body: bytes, drip: float) -> None:
            for piece in (body[k : k + 1] for k in range(len(body))) if drip else (body,):
                self.wfile.write(piece)
                with server.lock:
                    server.sent += len(piece)
                time.sleep(drip)

        def log_message(self, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            # clients are killed on purpose
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
        server.url = f"https://localhost:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
