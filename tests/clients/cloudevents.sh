#!/usr/bin/env bash
# Reads every event of a running deployment (NATS_URL; after `deploy/local.sh up -d`: . .local/env) with the CloudEvents SDK for
# Python, compares what it makes of the headers with the payload, and holds the payload to its JSON Schema. Ends with status 77
# where that cannot be installed.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
: "${NATS_URL:?cloudevents.sh: expected NATS_URL: . .local/env}"
python=$("$here/venv.sh" cloudevents cloudevents==2.2.0 'jsonschema[format]==4.26.0' nats-py==2.16.0)
exec "$python" "$here/cloud_events.py" "$here/../../docs/schema"
