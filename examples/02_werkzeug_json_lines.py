"""JSON lines with Werkzeug alone: routing by hand, one record per line as it is found.

run:  gunicorn --threads 4 --chdir examples 02_werkzeug_json_lines:app
curl: curl -N http://127.0.0.1:8000/
"""

import json
from collections.abc import Iterator
from pathlib import Path

from werkzeug.wrappers import Request

from streamkit import NDJSONResponse


def modules() -> Iterator[dict[str, object]]:
    for path in sorted(Path(json.__file__).parent.glob("*.py")):
        yield {"name": path.stem, "bytes": path.stat().st_size}


@Request.application
def app(request: Request) -> NDJSONResponse:
    return NDJSONResponse(modules())
