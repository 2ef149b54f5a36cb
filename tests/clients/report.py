"""One line of JSON a case: what the client saw, for tests/tests/clients to compare with the record."""

import json
import os

GATEWAY = os.environ["GATEWAY_URL"]
TOKEN = os.environ["TOKEN"]
QUESTION = [{"role": "user", "content": "How is the weather?"}]


def tag(client, case):
    """The header by which the chat is found in the record."""
    return {"x-stenograph-tags": f"{client}:{case}"}


def case(client, name, run):
    """Runs one case. `run` fills what was seen as it goes, so that what came before an error is there."""
    saw = {"case": name, "text": "", "tools": [], "failed": False, "status": None}
    try:
        run(saw)
    except Exception as error:  # Whatever a client throws is how it shows a failure.
        saw["failed"] = True
        status = getattr(error, "status_code", None)
        # An error within a stream has the status of the stream.
        saw["status"] = status if status and status >= 400 else None
        saw["error"] = type(error).__name__
    print(json.dumps({"client": client, **saw}), flush=True)
