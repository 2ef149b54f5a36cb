#!/usr/bin/env bash
# Reads every event of a running deployment (NATS_URL; after `deploy/local.sh up -d`: . .local/env) with the CloudEvents SDK
# for Python, compares the attributes read from the headers with the payload, and validates the payload against its JSON
# Schema. The exit status is 77 if the SDK cannot be installed.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
: "${NATS_URL:?cloudevents.sh: expected NATS_URL: . .local/env}"
python=$("$here/venv.sh" cloudevents cloudevents==2.2.0 'jsonschema[format]==4.26.0' nats-py==2.16.0)
exec "$python" "$here/cloud_events.py" "$here/../../docs/schema"
