"""Fake service `fake_service.py PORT [stubborn]`: responds to each GET with 200, ends on SIGTERM unless stubborn."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{os.getpid()} {os.environ.get('GREETING', '')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
sys.stdout.write("listening\n")
sys.stdout.flush()
server.serve_forever()
