"""Reads the whole stream as CloudEvents, with a general CloudEvents SDK and a general JSON Schema validator."""

import asyncio
import collections
import json
import os
import pathlib
import sys
import uuid
from datetime import datetime, timedelta

import nats
from cloudevents.core.bindings.http import HTTPMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator, FormatChecker
from nats.js.api import ConsumerConfig, DeliverPolicy

SCHEMAS = {path.stem: json.loads(path.read_text()) for path in pathlib.Path(sys.argv[1]).glob("stenograph.*.json")}
HAPPENED = ["finished_at", "failed_at", "deferred_at", "created_at", "changed_at", "deleted_at", "issued_at", "revoked_at", "published_at",
            "repriced_at", "recorded_at", "started_at"]


def check(message):
    headers = dict(message.headers)
    # The binary modes of NATS and HTTP differ in the name of one header.
    headers["content-type"] = headers.pop("ce-datacontenttype")
    elsewhere = "Stenograph-Body" in headers
    event = from_binary(HTTPMessage(headers, message.data or b"null"), JSONFormat(), CloudEvent)
    assert event.get_specversion() == "1.0", event.get_specversion()
    assert event.get_datacontenttype() == "application/json"
    assert event.get_dataschema() == SCHEMAS[event.get_type()]["$id"], event.get_dataschema()
    assert event.get_source().startswith("/"), event.get_source()
    assert str(uuid.UUID(event.get_id())) == event.get_id() == headers["Nats-Msg-Id"]
    assert event.get_time().utcoffset() == timedelta(0)
    if not elsewhere:
        data = event.get_data()
        Draft202012Validator(SCHEMAS[event.get_type()], format_checker=FormatChecker()).validate(data)
        said = next(data[name] for name in HAPPENED if name in data)
        assert event.get_time() == datetime.fromisoformat(said), (event.get_time(), said)
    return event.get_type()


async def main():
    client = await nats.connect(os.environ["NATS_URL"])
    stream = await client.jetstream().stream_info("CHATS")
    everything = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    events = await client.jetstream().subscribe("chats.>", stream="CHATS", ordered_consumer=True, config=everything)
    counts = collections.Counter()
    for _ in range(stream.state.messages):
        counts[check(await events.next_msg(timeout=20))] += 1
    await client.close()
    if not counts:
        sys.exit("the stream is empty: expected events")
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")


asyncio.run(main())
