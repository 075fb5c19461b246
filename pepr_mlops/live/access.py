"""Who may ask the live page for anything.

A browser sends whatever request a page makes. So that no other page reads or uses this one, it is
only answered under names it is known by, which a name that was bound to this machine's address
later is not, and only to its own scripts. Beyond this machine it also takes the token that is in
the address which was printed.
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

_OWN = ("same-origin", "none")  # whose wish a request is: our own page's, or the person's
# The cookie is not sent along where a link of another page led to the answer that set it, and is
# when this page then asks by itself.
_ENTER = '<!doctype html><meta http-equiv="refresh" content="0;url={}"><title>PePR</title>'


@dataclass(frozen=True)
class Guard:
    """What a request must have.

    `names` are the hosts that the page answers to, `proxies` those that browsers may use for it
    while another one forwards the request. With `anywhere` it answers to every IP address, else
    only to those of this machine. Without a `token` none is required.
    """

    names: frozenset[str]
    proxies: frozenset[str] = frozenset()
    anywhere: bool = False
    token: str | None = None

    @classmethod
    def of(cls, host: str, allowed: Sequence[str] = ()) -> Guard:
        """For a page that listens on `host`: with a new token if others can reach it there."""
        proxies = frozenset(name.lower() for name in allowed)
        names = proxies | {"localhost", host.lower()}
        if _is_here(host):
            return cls(names, proxies)
        machine = {socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(names | machine, proxies, anywhere=True, token=secrets.token_urlsafe(32))

    def check(self) -> Response | None:
        """The refusal of the request at hand, or None for one that is allowed."""
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
        """Whether the request is of this page, or a person's who follows a link to it."""
        headers = request.headers
        origin = headers.get("Origin")
        if origin is not None:
            place = origin.partition("://")[2].lower()
            if place != host.lower() and _name(place) not in self.proxies:
                return False
        link = request.method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
        return link or headers.get("Sec-Fetch-Site", "none") in _OWN

    def _admit(self, token: str) -> Response | None:
        """Ask for the token; one in the address becomes a cookie and leaves it."""
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
    """The host's name without its port; None for what is no host."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _refusal(status: int, why: str) -> Response:
    return Response(f"{why}\n", status, mimetype="text/plain")
