"""A table straight from a database cursor to a CSV download, in constant memory.

run:  gunicorn --threads 4 --chdir examples 06_sqlite_to_csv:app
curl: curl -N http://127.0.0.1:8000/squares.csv
"""

import sqlite3

from flask import Flask

from streamkit import CSVResponse

app = Flask(__name__)
QUERY = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) SELECT i, i * i AS square FROM n"
)


@app.get("/squares.csv")
def squares() -> CSVResponse:
    connection = sqlite3.connect(":memory:")
    response = CSVResponse(connection.execute(QUERY), filename="squares.csv")  # header from the cursor
    response.call_on_close(connection.close)  # whatever the end: complete, failed, or the client left
    return response
