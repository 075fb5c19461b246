"""Who may use the live page.

A browser sends the requests of every page that is open in it. So that no other page reads or uses
this one, it answers only its own scripts, and only under names that it knows: not under a name that
somebody pointed at this machine later. Other machines also need the token, which is in the printed
address.
"""

from __future__ import annotations

import hashlib
import html
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest
from urllib.parse import urlencode, urlsplit

from flask import Request, Response, request

_OWN = ("same-origin", "none")  # a request was made by our own page, or by the person
# After a link from another page the browser does not send the cookie that the answer sets. It does
# once this page loads the live page by itself.
_ENTER = '<!doctype html><meta http-equiv="refresh" content="0;url={}"><title>PePR</title>'


@dataclass(frozen=True)
class Guard:
    """What a request must have.

    `names` are the host names that the page answers under. `proxies` are those among them that a
    browser may use while the proxy forwards the request under another. With `anywhere` the page
    answers under every IP address, else only under those of this machine. Without a `token` none is
    required.
    """

    names: frozenset[str]
    proxies: frozenset[str] = frozenset()
    anywhere: bool = False
    token: str | None = None

    @classmethod
    def of(cls, host: str, allowed: Sequence[str] = ()) -> Guard:
        """For a page that listens on `host`, with a new token if other machines can reach it."""
        proxies = frozenset(name.lower() for name in allowed)
        names = proxies | {"localhost", host.lower()}
        if _is_here(host):
            return cls(names, proxies)
        machine = {socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(names | machine, proxies, anywhere=True, token=secrets.token_urlsafe(32))

    def check(self) -> Response | None:
        """The refusal of the current request, or None if it is allowed."""
        host = request.headers.get("Host", "")
        if not self._knows(host):
            return _refusal(403, "not known by this name; see pepr dashboard --allow-host")
        if not self._is_own(request, host):
            return _refusal(403, "another page requested this")
        return None if self.token is None else self._admit(self.token)

    def _knows(self, host: str) -> bool:
        name = _name(host)
        if name is None or "@" in host:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return self.anywhere or address.is_loopback or name in self.names

    def _is_own(self, request: Request, host: str) -> bool:
        """Whether this page made the request, or a person who follows a link to it."""
        headers = request.headers
        origin = headers.get("Origin")
        if origin is not None:
            place = origin.partition("://")[2].lower()
            if place != host.lower() and _name(place) not in self.proxies:
                return False
        link = request.method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
        return link or headers.get("Sec-Fetch-Site", "none") in _OWN

    def _admit(self, token: str) -> Response | None:
        """Require the token; one in the address moves into a cookie."""
        cookie = f"pepr-{hashlib.sha256(token.encode()).hexdigest()[:8]}"
        given = request.args.get("token")
        if given is None:
            kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
            given = bearer if kind == "Bearer" else request.cookies.get(cookie)
            if given is None:
                words = "open the address that pepr dashboard printed, with the token in it"
                return _refusal(401, words)
        if not compare_digest(given.encode(), token.encode()):
            return _refusal(403, "this token is not that of the page; it is new at every start")
        if "token" not in request.args:
            return None
        rest = [(k, v) for k, v in request.args.items(multi=True) if k != "token"]
        target = html.escape(f"/?{urlencode(rest)}" if rest else "/")
        entered = Response(_ENTER.format(target), mimetype="text/html")
        entered.headers["Cache-Control"] = "no-store"
        entered.set_cookie(cookie, token, httponly=True, samesite="Strict")
        return entered


def _is_here(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(where[4][0]).is_loopback for where in found)


def _name(host: str) -> str | None:
    """The name of the host without its port; None if it is not a host."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _refusal(status: int, why: str) -> Response:
    return Response(f"{why}\n", status, mimetype="text/plain")
