"""The web page that the local API serves: files that hold nothing of this device; what they show they ask the API for.

No build step, no script or font from elsewhere: the page works on a device without internet, and its content policy
lets it load nothing but these files.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from nis_edge.adapters.http_api import Handler, Request, Response, Routes

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

OPEN_PATHS: Final = frozenset(_FILES)
"""Served without a token: the page asks for it and sends it with each question to the API."""

HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
)


def page_routes() -> Routes:
    """The page's files."""
    return {("GET", path): _file(name, content_type) for path, (name, content_type) in _FILES.items()}


def _file(name: str, content_type: str) -> Handler:
    async def serve(_request: Request) -> Response:
        # Read when asked: a daemon whose page nobody opens holds none of it.
        body = (files("nis_edge") / "web" / name).read_bytes()
        return Response(200, body, content_type, HEADERS)

    return serve
