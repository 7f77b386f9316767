"""Who stands in the way, by the traces that they leave in an answer, and the lines to change in each.

Sources: the manuals of the programs (nginx: ngx_http_proxy_module, ngx_http_gzip_module; Caddy: reverse_proxy and
encode; Apache: mod_proxy, mod_deflate; Cloudflare: Cache Rules, Configuration Rules), and for nginx and Caddy the
tests, which set each fault up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

NGINX: Final = "nginx"
CADDY: Final = "Caddy"
CLOUDFLARE: Final = "Cloudflare"
APACHE: Final = "Apache"
DEV_PROXY: Final = "a development proxy (webpack, Vite)"

# Header, what its value begins with or contains ("" is anything), who sends it. Outermost first.
_TRACES: Final = (
    ("cf-ray", "", CLOUDFLARE),
    ("server", "cloudflare", CLOUDFLARE),
    ("x-amz-cf-id", "", "CloudFront"),
    ("server", "awselb", "AWS load balancer"),
    ("via", "google", "Google Cloud load balancer"),
    ("via", "vegur", "Heroku router"),
    ("via", "heroku", "Heroku router"),
    ("fly-request-id", "", "Fly proxy"),
    ("x-vercel-id", "", "Vercel"),
    ("x-varnish", "", "Varnish"),
    ("via", "varnish", "Varnish"),
    ("server", "envoy", "Envoy"),
    ("server", "openresty", NGINX),
    ("server", "nginx", NGINX),
    ("server", "caddy", CADDY),
    ("via", "caddy", CADDY),
    ("server", "apache", APACHE),
    ("x-powered-by", "express", DEV_PROXY),
    ("server", "gunicorn", "gunicorn"),
    ("server", "werkzeug", "Werkzeug"),
    ("server", "waitress", "waitress"),
    ("server", "uwsgi", "uWSGI"),
    ("server", "streamkit", "streamkit"),
)

SERVERS: Final = frozenset({"gunicorn", "Werkzeug", "waitress", "uWSGI", "streamkit"})
"""Those of them that run the application and are no proxies."""


def hops(headers: Iterable[tuple[str, str]], seen: dict[str, str] | None = None) -> list[str]:
    """The programs that have left a trace in the headers of an answer, or of the request as the application saw it."""
    answer = [(name.lower(), value.lower()) for name, value in headers]
    answer += [(name.lower(), value.lower()) for name, value in (seen or {}).items()]
    found: list[str] = []
    for name, mark, hop in _TRACES:
        if hop not in found and any(name == key and mark in value for key, value in answer):
            found.append(hop)
    return found


def remedy(fault: str, found: list[str]) -> tuple[str, list[str]]:
    """Who is likely to cause a fault, and the lines that cure it: of the first hop that is known for it."""
    cures = _CURES.get(fault, {})
    for hop in found:
        if hop in cures:
            return hop, cures[hop].splitlines()
    return ", ".join(hop for hop in found if hop not in SERVERS), cures.get("", "").splitlines()


_HEADERS: Final = """\
# the headers that streamkit's EventSourceResponse sends by itself
Content-Type: text/event-stream; charset=utf-8
Cache-Control: no-cache, no-transform
X-Accel-Buffering: no"""

_CURES: Final[dict[str, dict[str, str]]] = {
    "buffered": {
        NGINX: """\
# in the location of the stream
proxy_buffering off;
# and no "proxy_ignore_headers X-Accel-Buffering;": with that header passed on, the application decides""",
        CADDY: """\
reverse_proxy 127.0.0.1:8000 {
    flush_interval -1
    # and no "response_buffers"
}""",
        CLOUDFLARE: """\
# cloudflared: "disableChunkedEncoding: true" in originRequest makes it wait; take it out
# zone: a Configuration Rule for the path of the stream that turns off what rewrites bodies (Rocket Loader, minify,
#   e-mail obfuscation), and a Cache Rule "bypass cache"; the answer has to be text/event-stream""",
        APACHE: """\
ProxyPass "/events" "http://127.0.0.1:8000/events" flushpackets=on
SetEnvIf Request_URI "^/events" no-gzip=1""",
        DEV_PROXY: """\
# webpack-dev-server
devServer: { compress: false }
# Vite: open the stream at the application's own port while developing""",
        "waitress": """\
# no --send-bytes: with more than its default of 1 waitress collects so many bytes before it sends
waitress-serve app:app""",
        "": f"""\
# a middleware that compresses or measures bodies, or a proxy that is not known by its headers.
# Ask the application's own port the same; if that is fine, it is the proxy.
{_HEADERS}""",
    },
    "silent": {
        NGINX: """\
# if the application has sent something: in the location of the stream
proxy_buffering off;
# if it has not: let it open its stream with a comment at once, as EventSourceResponse does""",
        "": """\
# Ask the application's own port the same. If that is silent too, the application has sent nothing yet:
#   let it open its stream with a comment at once, as EventSourceResponse does.
# If that is fine, the proxy holds back what it gets: turn its buffering off for this path.""",
    },
    "late-headers": {
        "": """\
# a WSGI server sends the headers with the first chunk, so send one at once: a comment line
yield ":\\n"   # EventSourceResponse does so by itself"""
    },
    "compressed": {
        NGINX: """\
# in the location of the stream; gzip_types must not have text/event-stream or *
gzip off;""",
        CADDY: """\
# compress everything but the stream
@pages not path /events*
encode @pages gzip""",
        CLOUDFLARE: """\
# a Compression Rule for the path of the stream: disable compression; and from the application:
Cache-Control: no-store, no-transform""",
        APACHE: 'SetEnvIf Request_URI "^/events" no-gzip=1',
        DEV_PROXY: """\
devServer: { compress: false }""",
        "": f"""\
# a gzip middleware around the application (Flask-Compress, GZipMiddleware): leave text/event-stream out of it
COMPRESS_MIMETYPES = ["text/html", "text/css", "application/json"]  # Flask-Compress
{_HEADERS}""",
    },
    "http10-upstream": {
        NGINX: """\
# in the location of the stream
proxy_http_version 1.1;
proxy_set_header Connection "";""",
        CADDY: """\
reverse_proxy 127.0.0.1:8000 {
    transport http {
        versions 1.1
    }
}""",
        APACHE: """\
# no "SetEnv force-proxy-request-1.0 1" and no "downgrade-1.0" for this path""",
        "": "# let the proxy speak HTTP/1.1 to the application",
    },
    "http10": {
        "": """\
# the server answers HTTP/1.0: put it behind a proxy, or use one that speaks HTTP/1.1
python -m streamkit serve app:app"""
    },
    "end-hidden": {
        NGINX: """\
proxy_http_version 1.1;
proxy_set_header Connection "";""",
        CADDY: """\
reverse_proxy 127.0.0.1:8000 {
    # no "response_buffers": it ends what has broken off
    flush_interval -1
}""",
        "": """\
# this server marks the end by closing the connection alone. Say it in the stream:
EventSourceResponse(events, complete="complete")   # the client closes on this event
CSVResponse(rows, end_row=...)                      # the reader looks for it""",
    },
    "truncated": {
        "": """\
# a stream that ends properly arrives cut off: look at the server's log for a worker that was killed (gunicorn:
#   "WORKER TIMEOUT"; use threads, or raise --timeout) and at the time-outs of the proxy"""
    },
    "idle-cut": {
        NGINX: """\
# in the location of the stream: longer than the heartbeat of 15 s (the default is 60s)
proxy_read_timeout 1h;""",
        CADDY: """\
reverse_proxy 127.0.0.1:8000 {
    transport http {
        # no "read_timeout", or one that is longer than the heartbeat of 15 s
        read_timeout 1h
    }
}""",
        APACHE: """\
ProxyPass "/events" "http://127.0.0.1:8000/events" timeout=3600""",
        CLOUDFLARE: """\
# 120 s without a byte, changed by Enterprise plans only; send a heartbeat more often
EventSourceResponse(events, heartbeat=15)""",
        "Heroku router": """\
# 55 s without a byte, and fixed; send a heartbeat more often
EventSourceResponse(events, heartbeat=15)""",
        "AWS load balancer": """\
aws elbv2 modify-load-balancer-attributes --attributes Key=idle_timeout.timeout_seconds,Value=3600 \\
    --load-balancer-arn ...""",
        "": """\
# raise the idle time-out of the proxy, and send a heartbeat more often than it
EventSourceResponse(events, heartbeat=15)""",
    },
    "leaving-unseen": {
        NGINX: "proxy_ignore_client_abort off;",
        "waitress": """\
# waitress looks at its readers only when told to
waitress-serve --channel-request-lookahead=1 app:app""",
        "": """\
# something between keeps the connection to the application open, or the server does not lend its socket.
# A heartbeat finds who has left at its second write:
EventSourceResponse(events, heartbeat=5)""",
    },
    "content-type": {"": "Content-Type: text/event-stream; charset=utf-8"},
    "content-length": {
        "": "# take Content-Length out: an event stream has none. A middleware that measures bodies collects them first"
    },
    "cache-control": {"": "Cache-Control: no-store, no-transform"},
    "accel-buffering": {"": "X-Accel-Buffering: no"},
    "cached": {
        NGINX: "proxy_cache off;",
        CLOUDFLARE: "# a Cache Rule for the path of the stream: bypass cache",
        "": "Cache-Control: no-store, no-transform",
    },
    "status": {"": ""},
}
