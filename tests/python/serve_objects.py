"""Serves a directory over HTTP as an object store would, with faults.

Usage: serve_objects.py DIRECTORY [LATENCY_MS]     (prints its port; ends with its standard input)

The first part of a URL's path names the fault and its seed, `MODE-SEED`; the rest is a file of the directory:
  none       ranges, ETag, If-Match
  plain      no ETag, Last-Modified and If-Unmodified-Since alone
  unnamed    neither ETag nor Last-Modified
  whole      ranges are ignored: 200 and all bytes
  lax        conditions are ignored
  busy       one answer in five is 503 SlowDown
  reset      one connection in five is cut before an answer
  cut        one body in five ends half way
  short      one answer in five promises and sends half of the range, as if it were all
  shifted    one answer in five tells of another range than was asked for
  long       one body in five has more bytes than the range
  dead       the first 30 answers are good, then every connection is cut
  mute       the first 30 answers are good, then none comes
  denied     absent objects are 403, as of S3 without the right to list
  beyond     after 30 answers every range is 416
  moved      every object is elsewhere: 307 to the same under `none`
  changed    after 30 answers every object has another ETag, and answers as of that one
  replaced   as `changed`, but conditions are ignored
`GET /count` answers how many requests came, other than this.
"""

import hashlib
import os
import random
import socketserver
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate, parsedate_to_datetime

ROOT = os.path.abspath(sys.argv[1])
LATENCY = float(sys.argv[2]) / 1000 if len(sys.argv) > 2 else 0.0

lock = threading.Lock()
requests = {}
total = 0


def fault(mode, seed, number):
    """Whether the request of that number is one of the one in five."""
    return random.Random(f"{mode}-{seed}-{number}").random() < 0.2


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while self.answer():
                pass
        except (ConnectionError, TimeoutError, ValueError):
            pass

    def send(self, status, headers, body=b"", promised=None):
        reason = {200: "OK", 206: "Partial Content", 307: "Temporary Redirect", 403: "Forbidden", 404: "Not Found",
                  412: "Precondition Failed", 416: "Range Not Satisfiable", 503: "Service Unavailable"}[status]
        headers = {"Content-Length": len(body) if promised is None else promised, **headers}
        lines = [f"HTTP/1.1 {status} {reason}"] + [f"{name}: {value}" for name, value in headers.items()]
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return promised is None or promised == len(body)

    def answer(self):
        global total
        line = self.rfile.readline().decode()
        if not line.strip():
            return False
        _method, target, _version = line.split()
        headers = {}
        while (line := self.rfile.readline().decode().strip()):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if target == "/count":
            return self.send(200, {}, str(total).encode())
        parts = urllib.parse.unquote(urllib.parse.urlsplit(target).path).lstrip("/").split("/", 1)
        mode, _, seed = parts[0].partition("-")
        with lock:
            total += 1
            number = requests[parts[0]] = requests.get(parts[0], 0) + 1
        if LATENCY:
            time.sleep(LATENCY)
        bad, late = fault(mode, seed, number), number > 30
        path = os.path.join(ROOT, os.path.normpath("/" + parts[1]).lstrip("/")) if len(parts) > 1 else ROOT
        if (mode == "reset" and bad) or (mode == "dead" and late):
            return False
        if mode == "mute" and late:
            time.sleep(120)
            return False
        if mode == "busy" and bad:
            return self.send(503, {}, b"<Error><Code>SlowDown</Code></Error>")
        if mode == "moved":
            return self.send(307, {"Location": target.replace("/" + parts[0], "/none-" + seed, 1)})
        if not os.path.isfile(path):
            if mode == "denied":
                return self.send(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
            return self.send(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
        return self.object(mode, path, headers, bad, late)

    def object(self, mode, path, headers, bad, late):
        status = os.stat(path)
        tag = hashlib.md5(f"{path} {status.st_mtime_ns} {status.st_size}".encode()).hexdigest()
        if mode in ("changed", "replaced") and late:
            tag = tag[::-1]
        tag = f'"{tag}"'
        said = {"Last-Modified": formatdate(int(status.st_mtime), usegmt=True), "Accept-Ranges": "bytes"}
        if mode == "unnamed":
            said = {}
        elif mode != "plain":
            said["ETag"] = tag
        if mode not in ("lax", "replaced"):
            wanted = headers.get("if-match")
            since = headers.get("if-unmodified-since")
            if wanted and wanted != tag:
                return self.send(412, said)
            if since and parsedate_to_datetime(since).timestamp() < int(status.st_mtime):
                return self.send(412, said)
        size = status.st_size
        start, end = 0, size
        asked = headers.get("range", "")
        if asked and mode != "whole":
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = (int(first), min(int(last) + 1 if last else size, size)) if first else (max(size - int(last), 0), size)
            if start >= size or (mode == "beyond" and late):
                return self.send(416, {"Content-Range": f"bytes */{size}"})
        with open(path, "rb") as file:
            file.seek(start)
            body = file.read(end - start)
        if not asked or mode == "whole":
            return self.send(200, said, body)
        length = len(body)
        if mode == "short" and bad and length > 1:
            body, end = body[: length // 2], start + length // 2
            length = len(body)
        if mode == "shifted" and bad and start > 0:
            said["Content-Range"] = f"bytes {start - 1}-{end - 2}/{size}"
            return self.send(206, said, body)
        said["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if mode == "long" and bad:
            body += b"more"
            length = len(body)
        if mode == "cut" and bad:
            body = body[: length // 2]
        return self.send(206, said, body, length)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
