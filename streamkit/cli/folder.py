"""A folder of files as a WSGI application: what `serve FOLDER` serves. Reading only, and nothing outside the folder."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from streamkit import FileResponse

_QUERY_CHARACTERS = "%!$&'()*+,;:=@/?-._~"  # RFC 3986 section 3.4, and what has been percent-encoded already


def folder_app(folder: Path) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """An application that answers GET and HEAD with the files of `folder`: ranges, ETags and 304 by `FileResponse`.

    A folder is answered with its `index.html`; there are no listings. Names that begin with "." are not served, and
    symbolic links are not followed: 404, like what is not there. Other methods are 405.
    """
    root = folder.resolve()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _say(environ, start_response, "405 Method Not Allowed", ("Allow", "GET, HEAD"))
        path = environ.get("PATH_INFO", "").encode("latin-1")
        name = path.decode("utf-8", "surrogateescape").lstrip("/")
        if name and not name.endswith("/") and _is_folder(root, name):
            # One slash in front: "//host" would send the browser to another host (RFC 3986 4.2).
            place = (environ.get("SCRIPT_NAME", "").encode("latin-1") + path).strip(b"/")
            query = quote(environ.get("QUERY_STRING", "").encode("latin-1"), safe=_QUERY_CHARACTERS)
            location = f"/{quote(place)}/" + (f"?{query}" if query else "")
            return _say(environ, start_response, "308 Permanent Redirect", ("Location", location))
        if not name or name.endswith("/"):
            name += "index.html"
        answer: Iterable[bytes] = FileResponse(name, directory=root)(environ, start_response)
        return answer

    return application


def _is_folder(root: Path, name: str) -> bool:
    """Whether there is such a folder, of names that may be asked for and without a symbolic link on the way to it.

    The file itself is found by `FileResponse`, under the same rules.
    """
    place = root
    for part in filter(None, name.split("/")):
        if part.startswith("."):
            return False
        place /= part
        try:
            if not stat.S_ISDIR(place.lstat().st_mode):
                return False
        except (OSError, ValueError):  # not there, too long, or with a NUL
            return False
    return True


def _say(
    environ: dict[str, Any], start_response: Callable[..., Any], status: str, *headers: tuple[str, str]
) -> list[bytes]:
    body = f"{status}\n".encode()
    plain = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, [*plain, *headers])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
