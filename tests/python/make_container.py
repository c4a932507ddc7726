"""Makes a container in Azure's emulator. Usage: make_container.py ENDPOINT KEY NAME"""

import base64
import hashlib
import hmac
import sys
import urllib.parse
import urllib.request
from email.utils import formatdate

endpoint, key, name = sys.argv[1:]
path = urllib.parse.urlsplit(endpoint).path
account = path.strip("/")
now, version = formatdate(usegmt=True), "2021-08-06"
headers = f"x-ms-date:{now}\nx-ms-version:{version}\n"
text = "PUT\n" + "\n" * 11 + headers + f"/{account}{path}/{name}\nrestype:container"
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", data=b"")
request.add_header("x-ms-date", now)
request.add_header("x-ms-version", version)
request.add_header("Authorization", f"SharedKey {account}:{signature}")
request.add_header("Content-Type", "")
request.add_header("Content-Length", "0")
urllib.request.urlopen(request, timeout=30).read()
