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
  cut        one body in five ends in the middle
  short      one answer in five declares and sends half of the range, as if it were all
  shifted    one answer in five declares another range than was requested
  long       one body in five has more bytes than the range
  dead       the first 30 answers are correct, then every connection is closed
  mute       the first 30 answers are correct, then there are none
  denied     absent objects are 403, as of S3 without the right to list
  beyond     after 30 answers every range is 416
  moved      every object is elsewhere: 307 to the same under `none`
  changed    after 30 answers every object has another ETag, and answers have that one
  replaced   as `changed`, but conditions are ignored
  broken     everything below a folder `X` is 500
  removed    from the first request for something below a folder `X` on, all objects are absent
  mix        one to four kinds of faults at a share of the answers, of those in `PASSING` and `LIES` below; the fault depends on seed, path,
             range and how often that was requested, not on the order of requests; after three faults it is answered
  passing    as `mix`, but only faults that a retry overcomes
`GET /count` returns the number of other requests; `GET /faults` how many of them had a fault of `mix` or `passing`.
"""

import gzip
import hashlib
import http
import os
import random
import socket
import socketserver
import struct
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate, parsedate_to_datetime

ROOT = os.path.abspath(sys.argv[1])
LATENCY = float(sys.argv[2]) / 1000 if len(sys.argv) > 2 else 0.0

# A retry, or continuing at the next byte, gives the right bytes.
PASSING = ["busy", "many", "failed", "gateway", "late", "silent", "torn", "cut", "headless", "pieces", "moved", "found", "away", "hints"]
# Wrong answers that must be detected. Those in `LATER` are sent only to clients that know the version, as they are valid answers
# to others.
LIES = ["short", "less", "shifted", "long", "unknown", "unranged", "whole", "denied", "unsigned", "untagged",
        "garbage", "nothing", "unmodified", "empty", "loop", "nowhere", "header", "zipped"]
LATER = ["gone", "changed", "replaced", "total", "weak", "beyond"]

lock = threading.Lock()
requests = {}
total = 0
faults = 0
gone = set()


def kind_of_fault(mode, seed, path, headers):
    """The fault of this request; None if it is answered."""
    global faults
    asked, known = headers.get("range", ""), "if-match" in headers
    with lock:
        time_of_it = requests[seed, path, asked] = requests.get((seed, path, asked), 0) + 1
    chosen = random.Random(f"{mode}-{seed}")
    share = chosen.choice([0.05, 0.2, 0.5, 0.8])
    kinds = chosen.sample(PASSING if mode == "passing" else PASSING + LIES + LATER, chosen.randint(1, 4))
    this = random.Random(f"{seed} {path} {asked} {time_of_it}")
    if time_of_it > 3 or this.random() >= share:
        return None
    kind = this.choice(kinds)
    if kind in LATER and not known:
        return None
    with lock:
        faults += 1
    return kind


def fault(mode, seed, number):
    """Whether the request with this number has the fault (one in five)."""
    return random.Random(f"{mode}-{seed}-{number}").random() < 0.2


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while self.answer():
                pass
        except (ConnectionError, TimeoutError, ValueError):
            pass

    def send(self, status, headers, body=b"", promised=None):
        reason = http.HTTPStatus(status).phrase
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
        if target == "/faults":
            return self.send(200, {}, str(faults).encode())
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
        if mode == "loop":
            return self.send(307, {"Location": target})
        if mode == "moved":
            return self.send(307, {"Location": target.replace("/" + parts[0], "/none-" + seed, 1)})
        if mode in ("mix", "passing") and os.path.isfile(path):
            kind = kind_of_fault(mode, seed, path, headers)
            return self.ill(kind, path, target.replace(parts[0], f"none-{seed}", 1), headers) if kind else self.object("none", path, headers)
        if mode == "removed" and "/X/" in path:
            gone.add(seed)
        if mode == "broken" and "/X/" in path:
            return self.send(500, {}, b"<Error><Code>InternalError</Code></Error>")
        if not os.path.isfile(path) or (mode == "removed" and seed in gone):
            if mode == "denied":
                return self.send(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
            return self.send(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
        return self.object(mode, path, headers, bad, late)

    def object(self, mode, path, headers, bad=False, late=False):
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


    def ill(self, kind, path, healthy, headers):
        """An answer with a fault; whether the connection can be used again."""
        error = b"<Error><Code>Fault</Code></Error>"
        plain = {"busy": 503, "many": 429, "failed": 500, "gateway": 502, "late": 408, "denied": 403, "unsigned": 401, "gone": 404}
        if kind in plain:
            return self.send(plain[kind], {"Retry-After": "0"}, error)
        if kind in ("moved", "found", "loop", "away", "nowhere"):
            place = {"loop": healthy.replace("none-", "loop-", 1), "away": "http://127.0.0.1:1" + healthy}
            where = {} if kind == "nowhere" else {"Location": place.get(kind, healthy)}
            return self.send(302 if kind == "found" else 307, where)
        if kind == "silent":
            return False
        status = os.stat(path)
        size = status.st_size
        tag = '"' + hashlib.md5(f"{path} {status.st_mtime_ns} {size}".encode()).hexdigest() + '"'
        said = {"Last-Modified": formatdate(int(status.st_mtime), usegmt=True), "ETag": tag}
        first, _, last = headers.get("range", "").removeprefix("bytes=").partition("-")
        start, end = int(first or 0), min(int(last) + 1 if last else size, size)
        with open(path, "rb") as file:
            file.seek(start)
            body = file.read(end - start)
        wrong = bytes(byte ^ 0x55 for byte in body)
        said["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if kind == "beyond":
            return self.send(416, {"Content-Range": f"bytes */{size}"})
        if kind == "changed":
            return self.send(412, said)
        if kind == "replaced":
            return self.send(206, {**said, "ETag": tag[:-1] + '0"'}, wrong)
        if kind == "weak":
            return self.send(206, {**said, "ETag": "W/" + tag}, wrong)
        if kind == "untagged":
            return self.send(206, {"Content-Range": said["Content-Range"]}, wrong)
        if kind == "garbage":
            self.wfile.write(body[:500] + b"\r\n\r\n")
            return False
        if kind in ("nothing", "unmodified"):
            self.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n" if kind == "nothing" else b"HTTP/1.1 304 Not Modified\r\n\r\n")
            return True
        if kind == "empty":
            return self.send(206, said)
        if kind == "header":
            return self.send(206, {**said, "X-Long": "x" * (1 << 20)}, wrong)
        if kind == "zipped":
            return self.send(206, {**said, "Content-Encoding": "gzip"}, gzip.compress(body, 1))
        if kind == "short":
            half = max(len(body) // 2, 1)
            return self.send(206, {**said, "Content-Range": f"bytes {start}-{start + half - 1}/{size}"}, body[:half])
        if kind == "less":
            return self.send(206, said, wrong[: len(body) // 2])
        if kind == "shifted":
            return self.send(206, {**said, "Content-Range": f"bytes {start + 1}-{end}/{size + 1}"}, wrong)
        if kind == "long":
            return self.send(206, said, wrong + b"more")
        if kind == "total":
            return self.send(206, {**said, "Content-Range": f"bytes {start}-{end - 1}/{size + 1}"}, wrong)
        if kind == "unknown":
            return self.send(206, {**said, "Content-Range": f"bytes {start}-{end - 1}/*"}, wrong)
        if kind in ("unranged", "whole"):
            del said["Content-Range"]
            return self.send(206 if kind == "unranged" else 200, said, wrong)
        if kind == "hints":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
            return self.send(206, said, body)
        if kind == "headless":
            self.wfile.write(b"HTTP/1.1 206 Partial Content\r\nContent-Le")
            return False
        # What is left: torn, cut, pieces.
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Content-Length": len(body), **said}.items())
        self.wfile.write(f"HTTP/1.1 206 Partial Content\r\n{head}\r\n".encode())
        if kind == "pieces":
            for at in range(0, len(body), max(len(body) // 7, 1)):
                self.wfile.write(body[at : at + max(len(body) // 7, 1)])
            return True
        self.wfile.write(body[: len(body) // 2])
        if kind == "torn":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
