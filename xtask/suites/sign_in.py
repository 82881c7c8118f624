"""Signs somebody in as a browser and the command line do, and prints their database passwords.

Arguments: the gateway's certificate, its port, name, password, names of databases. Standard input:
what `curfew user add --json` printed. One line of output for each database, in order.
"""

import base64
import hashlib
import hmac
import html
import http.cookiejar
import json
import re
import ssl
import struct
import sys
import time
import urllib.parse
import urllib.request

certificate, port, name, password, *databases = sys.argv[1:]
secret = json.load(sys.stdin)["enrolled"]["secret"]
BASE = f"https://localhost:{port}"

tls = ssl.create_default_context(cafile=certificate)
jar = http.cookiejar.CookieJar()
browser = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=tls),
    urllib.request.HTTPCookieProcessor(jar),
)


def ask(path, form=None, method=None, **headers):
    url = path if path.startswith("https:") else BASE + path
    body = None if form is None else urllib.parse.urlencode(form).encode()
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    request = urllib.request.Request(url, body, headers, method=method)
    with browser.open(request, timeout=20) as answer:
        return answer.read().decode()


def page(path, form=None):
    fetch = {"Accept": "text/html", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    return ask(path, form, Origin=BASE, Sec_Fetch_Site="same-origin", **fetch)


def hidden(text, action):
    """The hidden fields of the form that goes to `action`."""
    form = text.split(f'action="{action}', 1)[1].split("</form>")[0]
    inputs = [tag for tag in re.findall(r"<input[^>]*>", form) if 'type="hidden"' in tag]
    field = lambda tag, key: html.unescape(re.search(rf' {key}="([^"]*)"', tag).group(1))
    return {field(tag, "name"): field(tag, "value") for tag in inputs}


def totp():
    """RFC 6238 with SHA-1, 30 s, six digits."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30), hashlib.sha1)
    at = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


form = hidden(page("/sign-in"), "/sign-in")
page("/sign-in", {**form, "name": name, "password": password, "code": totp()})

# A token for programs (RFC 8628), approved in this browser.
client = {"client_id": "curfew-cli"}
device = json.loads(ask("/oauth/device_authorization", client))
form = hidden(page(device["verification_uri_complete"]), "/device/decide")
page("/device/decide", {**form, "choice": "approve"})
grant = {
    "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
    "device_code": device["device_code"],
}
token = json.loads(ask("/oauth/token", {**client, **grant}))["access_token"]

for database in databases:
    path = f"/api/v1/databases/{urllib.parse.quote(database)}/password"
    made = json.loads(ask(path, method="POST", Authorization=f"Bearer {token}"))
    print(made["password"])
