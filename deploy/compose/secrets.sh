#!/bin/sh
# Makes the secrets of the compose file, once: random passwords and a conversation key. Each service gets a volume of its own
# that holds only the secrets of that service, readable by the service's user alone. Existing secrets are kept.
set -eu
umask 077

# random NAME: the secret NAME, made at the first call. Begins with a letter, because nats-server reads values as numbers where it can.
random() {
    mkdir -p /secrets/master
    [ -s "/secrets/master/$1" ] || printf 'p%s' "$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n')" >"/secrets/master/$1"
    cat "/secrets/master/$1"
}

# give VOLUME NAME USER TEXT: writes a secret for the user.
give() {
    printf '%s' "$4" >"/secrets/$1/$2.new"
    chown "$3:$3" "/secrets/$1/$2.new"
    mv "/secrets/$1/$2.new" "/secrets/$1/$2"
    chown "$3:$3" "/secrets/$1"
}

gateway=10001 recorder=10002 nats=10004 postgres=${POSTGRES_USER_ID:-70}

for role in gateway recorder serve operator analyst; do
    give nats "$role" "$nats" "$(random "nats-$role")"
done
give gateway nats-password "$gateway" "$(random nats-gateway)"
give recorder nats-password "$recorder" "$(random nats-recorder)"
give serve nats-password "$recorder" "$(random nats-serve)"
give operator nats-password "$recorder" "$(random nats-operator)"

for role in postgres owner recorder; do
    give postgres "$role" "$postgres" "$(random "postgres-$role")"
done
for service in recorder serve; do
    give "$service" database-url "$recorder" "postgres://recorder:$(random postgres-recorder)@postgres:5432/stenograph"
done
give operator database-url "$recorder" "postgres://stenograph:$(random postgres-owner)@postgres:5432/stenograph"

conversation=/secrets/master/conversation-keys
[ -s "$conversation" ] || printf '1:%s' "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')" >"$conversation"
give gateway conversation-keys "$gateway" "$(cat "$conversation")"

# Directories that the services write to.
chown "$recorder:$recorder" /secrets/signing-keys
chown "$gateway:$gateway" /data/gateway
chown "$nats:$nats" /data/nats
chown "$postgres:$postgres" /data/postgres
chmod 700 /data/gateway /data/nats /data/postgres
chmod 755 /secrets/signing-keys
