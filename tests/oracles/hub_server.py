"""As much of the Hub's protocol as an upload of small files needs, on loopback: what it was sent can be looked at."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What arrived: data sets made (name: private or not), and files by name of the data set; `tokens`: of what changes
    something."""

    def __init__(self, refuse: int | None = None) -> None:
        self.made: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str | None] = set()
        self.refuse = refuse
        self.address = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON for one request."""
        if self.refuse:
            return self.refuse, {"error": "you shall not"}
        parts = path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.made[name] = asked.get("private", asked.get("visibility") == "private")
            return 200, {"url": f"{self.address}/datasets/{name}"}
        if parts[:2] == ["api", "validate-yaml"]:
            return 200, {"errors": [], "warnings": []}
        name, what = "/".join(parts[2:4]), parts[4] if len(parts) > 4 else "info"
        if what == "preupload":
            files = json.loads(body)["files"]
            return 200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if what == "commit":
            for line in body.splitlines():
                sent = json.loads(line)
                if sent["key"] == "file":
                    value = sent["value"]
                    self.files.setdefault(name, {})[value["path"]] = base64.b64decode(value["content"])
            return 200, {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": f"{self.address}/datasets/{name}/commit/0",
            }
        return 200, {"id": name, "sha": "0" * 40, "siblings": []}


@contextmanager
def hub_server(refuse: int | None = None) -> Iterator[Hub]:
    """A Hub on loopback; with `refuse`, every request gets that status."""
    hub = Hub(refuse)

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            if "/commit/" in self.path or self.path.endswith("/create"):
                hub.tokens.add(self.headers.get("Authorization"))
            status, told = hub.answer(self.path, body)
            sent = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_HEAD = _any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
