"""Records what an HTTP client sends, and answers like a server that is sometimes busy and sometimes gone.

Usage: record_requests.py PORT SECONDS > requests.jsonl

Each request is a line {"path", "headers", "body" (hexadecimal), "text" (unpacked), "answered"}; headers that name hosts are left out. Of the writes to each
path the third is answered 503 and the fifth not at all, so that the client's way of trying again is among what is recorded.
`tests/interop/telegraf.jsonl` was made with it; which Telegraf and which settings, its first line says.
"""

import gzip
import http.server
import json
import sys
import threading
from collections import Counter
from urllib.parse import urlsplit

LEFT_OUT = {"host", "connection", "content-length", "transfer-encoding"}
lock, writes = threading.Lock(), Counter()


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def do_POST(self):
        body, path = self.body(), urlsplit(self.path).path
        with lock:
            writes[path] += 1
            is_write = path != "/query"
            answered = {3: 503, 5: 0}.get(writes[path], 204) if is_write else 200
            headers = {name: value for name, value in self.headers.items() if name.lower() not in LEFT_OUT}
            is_chunked = "Transfer-Encoding" in self.headers
            line = {
                "path": self.path,
                "headers": headers,
                "chunked": is_chunked,
                "body": body.hex(),
                "text": (gzip.decompress(body) if "Content-Encoding" in headers else body).decode(),
                "answered": answered,
            }
            print(json.dumps(line), flush=True)
        if answered == 0:
            self.close_connection = True
            self.connection.close()
            return
        reply = b'{"results":[{"statement_id":0}]}' if answered == 200 else b""
        self.send_response(answered)
        self.send_header("Content-Type", "application/json")
        if answered != 204:
            self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Recorder)
threading.Timer(float(sys.argv[2]), server.shutdown).start()
server.serve_forever()
