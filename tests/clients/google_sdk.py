"""Runs the cases with Google's unmodified Python SDK, in the dialect of Gemini."""

from google import genai
from google.genai import types

from report import GATEWAY, TOKEN, case, tag

CLIENT = "google-python"
QUESTION = "How is the weather?"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [types.Tool(function_declarations=[types.FunctionDeclaration(name="weather", parameters_json_schema=PARAMETERS)])]


# A client closes its connections when nothing refers to it, even while its answer is read.
CLIENTS = []


def models(name, token=TOKEN, retries=2):
    retry = types.HttpRetryOptions(attempts=retries + 1, initial_delay=0.02)
    options = types.HttpOptions(base_url=GATEWAY, headers=tag(CLIENT, name), retry_options=retry)
    CLIENTS.append(genai.Client(vertexai=False, api_key=token, http_options=options))
    return CLIENTS[-1].models


def config(tools=None):
    no_calls = types.AutomaticFunctionCallingConfig(disable=True)
    return types.GenerateContentConfig(tools=tools, automatic_function_calling=no_calls)


def stream(saw, name, **more):
    for chunk in models(name, **more).generate_content_stream(model=name, contents=QUESTION, config=config()):
        saw["text"] += chunk.text or ""


def whole(saw):
    answer = models("whole").generate_content(model="whole", contents=QUESTION, config=config())
    saw["text"] = answer.text
    assert answer.usage_metadata.total_token_count == 14


def called(calls):
    return [{"id": call.id or "", "name": call.name, "arguments": call.args} for call in calls or []]


def tools_stream(saw):
    chunks = models("tools-stream").generate_content_stream(model="tools-stream", contents=QUESTION, config=config(TOOLS))
    for chunk in chunks:
        saw["tools"] += called(chunk.function_calls)


def tools(saw):
    answer = models("tools").generate_content(model="tools", contents=QUESTION, config=config(TOOLS))
    saw["tools"] = called(answer.function_calls)


def abort(saw):
    chunks = models("abort").generate_content_stream(model="abort", contents=QUESTION, config=config())
    for chunk in chunks:
        saw["text"] += chunk.text or ""
        if saw["text"]:
            break
    chunks.close()


def count(saw):
    saw["text"] = str(models("count").count_tokens(model="count", contents=QUESTION).total_tokens)


def embeddings(saw):
    vectors = models("embeddings").embed_content(model="embeddings", contents=["first", "second"]).embeddings
    assert all(len(vector.values) == 3 for vector in vectors)
    saw["text"] = f"{len(vectors)} vectors"


for name in ["stream", "retried", "error-in-stream", "cut"]:
    case(CLIENT, name, lambda saw, name=name: stream(saw, name))
case(CLIENT, "whole", whole)
case(CLIENT, "limited", lambda saw: stream(saw, "limited", retries=0))
case(CLIENT, "unauthorized", lambda saw: stream(saw, "unauthorized", token="no token"))
case(CLIENT, "tools-stream", tools_stream)
case(CLIENT, "tools", tools)
case(CLIENT, "abort", abort)
case(CLIENT, "count", count)
case(CLIENT, "embeddings", embeddings)
