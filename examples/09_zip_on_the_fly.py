"""A zip archive that is never whole in memory or on disk: `zipfile` writes, the client downloads.

run:  gunicorn --threads 4 --chdir examples 09_zip_on_the_fly:app
curl: curl -N -o /dev/null -w "%{http_code} %{content_type}\\n" http://127.0.0.1:8000/modules.zip
"""

import json
import zipfile
from pathlib import Path
from typing import BinaryIO

from flask import Flask

from streamkit import StreamingResponse

app = Flask(__name__)


@app.get("/modules.zip")
def modules() -> StreamingResponse:
    def write(out: BinaryIO) -> None:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(json.__file__).parent.glob("*.py")):
                archive.write(path, path.name)

    return StreamingResponse.from_writer(write, mimetype="application/zip")
