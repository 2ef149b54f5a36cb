#!/bin/sh
# Starts nats-server with the passwords of the roles, which permissions.conf takes from the environment.
set -eu
NATS_GATEWAY_PASSWORD=$(cat /run/secrets/nats/gateway)
NATS_RECORDER_PASSWORD=$(cat /run/secrets/nats/recorder)
NATS_SERVE_PASSWORD=$(cat /run/secrets/nats/serve)
NATS_OPERATOR_PASSWORD=$(cat /run/secrets/nats/operator)
NATS_ANALYST_PASSWORD=$(cat /run/secrets/nats/analyst)
export NATS_GATEWAY_PASSWORD NATS_RECORDER_PASSWORD NATS_SERVE_PASSWORD NATS_OPERATOR_PASSWORD NATS_ANALYST_PASSWORD
exec nats-server --config /etc/stenograph/nats.conf
