"""Prints one line of JSON for each case with the response that the client received. tests/tests/clients compares it with the record."""

import json
import os

GATEWAY = os.environ["GATEWAY_URL"]
TOKEN = os.environ["TOKEN"]
QUESTION = [{"role": "user", "content": "How is the weather?"}]


def tag(client, case):
    """Returns the header with the tag by which the test finds the chat in the record."""
    return {"x-stenograph-tags": f"{client}:{case}"}


def case(client, name, run):
    """Runs one case and prints the result. `run` fills the result step by step, so that text received before an error is kept."""
    saw = {"case": name, "text": "", "tools": [], "failed": False, "status": None}
    try:
        run(saw)
    except Exception as error:  # Every exception counts as the client's report of a failure.
        saw["failed"] = True
        # Google's client calls the status a code.
        status = next((s for s in (getattr(error, name, None) for name in ("status_code", "code")) if isinstance(s, int)), None)
        # An error within a stream carries the stream's status, which is below 400 and not a failure status.
        saw["status"] = status if status and status >= 400 else None
        saw["error"] = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps({"client": client, **saw}), flush=True)
