"""Runs the cases with Anthropic's unmodified Python SDK."""

from anthropic import Anthropic

from report import GATEWAY, QUESTION, TOKEN, case, tag

CLIENT = "anthropic-python"
TOOLS = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]


def messages(name, token=TOKEN, retries=2):
    return Anthropic(base_url=GATEWAY, api_key=token, max_retries=retries, default_headers=tag(CLIENT, name)).messages


def stream(saw, name, **more):
    for event in messages(name, **more).create(model=name, max_tokens=100, messages=QUESTION, stream=True):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            saw["text"] += event.delta.text


def whole(saw):
    saw["text"] = messages("whole").create(model="whole", max_tokens=100, messages=QUESTION).content[0].text


def called(message):
    return [{"id": block.id, "name": block.name, "arguments": block.input} for block in message.content if block.type == "tool_use"]


def tools_stream(saw):
    with messages("tools-stream").stream(model="tools-stream", max_tokens=100, messages=QUESTION, tools=TOOLS) as events:
        saw["tools"] = called(events.get_final_message())


def tools(saw):
    saw["tools"] = called(messages("tools").create(model="tools", max_tokens=100, messages=QUESTION, tools=TOOLS))


def abort(saw):
    with messages("abort").stream(model="abort", max_tokens=100, messages=QUESTION) as events:
        for text in events.text_stream:
            saw["text"] += text
            break


def count(saw):
    saw["text"] = str(messages("count").count_tokens(model="count", messages=QUESTION).input_tokens)


for name in ["stream", "retried", "error-in-stream", "cut"]:
    case(CLIENT, name, lambda saw, name=name: stream(saw, name))
case(CLIENT, "whole", whole)
case(CLIENT, "limited", lambda saw: stream(saw, "limited", retries=0))
case(CLIENT, "unauthorized", lambda saw: stream(saw, "unauthorized", token="no-token"))
case(CLIENT, "tools-stream", tools_stream)
case(CLIENT, "tools", tools)
case(CLIENT, "abort", abort)
case(CLIENT, "count", count)
