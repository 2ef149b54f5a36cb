"""Runs the cases with the Azure client of OpenAI's unmodified Python SDK: the model in the path, the token in `api-key`."""

import json

from openai import AzureOpenAI

from report import GATEWAY, QUESTION, TOKEN, case, tag

CLIENT = "azure-python"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]


def client(name, token=TOKEN, retries=2):
    headers = tag(CLIENT, name)
    return AzureOpenAI(azure_endpoint=GATEWAY, api_key=token, api_version="2024-10-21", max_retries=retries, default_headers=headers)


def stream(saw, name, **more):
    with client(name, **more).chat.completions.create(model=name, messages=QUESTION, stream=True) as chunks:
        for chunk in chunks:
            for choice in chunk.choices:
                saw["text"] += choice.delta.content or ""


def whole(saw):
    answer = client("whole").chat.completions.create(model="whole", messages=QUESTION)
    saw["text"] = answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


def tools_stream(saw):
    calls = {}
    chunks = client("tools-stream").chat.completions.create(model="tools-stream", messages=QUESTION, tools=TOOLS, stream=True)
    for chunk in chunks:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                known = calls.setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
                known["arguments"] += call.function.arguments
    saw["tools"] = [{**call, "arguments": json.loads(call["arguments"])} for call in calls.values()]


def tools(saw):
    answer = client("tools").chat.completions.create(model="tools", messages=QUESTION, tools=TOOLS)
    calls = answer.choices[0].message.tool_calls
    saw["tools"] = [{"id": call.id, "name": call.function.name, "arguments": json.loads(call.function.arguments)} for call in calls]


def abort(saw):
    with client("abort").chat.completions.create(model="abort", messages=QUESTION, stream=True) as chunks:
        for chunk in chunks:
            saw["text"] += chunk.choices[0].delta.content or ""
            if saw["text"]:
                break


def models(saw):
    saw["text"] = " ".join(model.id for model in client("models").models.list())


def embeddings(saw):
    made = client("embeddings").embeddings.create(model="embeddings", input=["first", "second"])
    saw["text"] = f"{len(made.data)} vectors, {made.usage.total_tokens} tokens"


for name in ["stream", "retried", "error-in-stream", "cut"]:
    case(CLIENT, name, lambda saw, name=name: stream(saw, name))
case(CLIENT, "whole", whole)
case(CLIENT, "limited", lambda saw: stream(saw, "limited", retries=0))
case(CLIENT, "unauthorized", lambda saw: stream(saw, "unauthorized", token="no token"))
case(CLIENT, "tools-stream", tools_stream)
case(CLIENT, "tools", tools)
case(CLIENT, "abort", abort)
case(CLIENT, "models", models)
case(CLIENT, "embeddings", embeddings)
