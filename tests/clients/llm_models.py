"""Runs the cases with the unmodified models of the command line tool `llm`, which reads them from its own settings."""

import os
import pathlib
import tempfile

from report import GATEWAY, TOKEN, case, tag

CLIENT = "llm-python"
NAMES = ["stream", "retried", "error-in-stream", "cut", "whole", "unauthorized", "tools-stream", "tools", "abort"]

# Read when llm is imported.
settings = pathlib.Path(tempfile.mkdtemp())
os.environ["LLM_USER_PATH"] = str(settings)
(settings / "extra-openai-models.yaml").write_text("".join(f"""\
- model_id: case-{name}
  model_name: {name}
  api_base: {GATEWAY}/v1
  api_key_name: gateway
  supports_tools: true
  headers:
    x-stenograph-tags: {tag(CLIENT, name)["x-stenograph-tags"]}
""" for name in NAMES))

import llm  # noqa: E402

QUESTION = "How is the weather?"


def weather(city: str, days: list[int]) -> str:
    """The weather of a city."""
    return f"rain in {city} for {days}"


def prompt(name, token=TOKEN, **more):
    return llm.get_model(f"case-{name}").prompt(QUESTION, key=token, **more)


def stream(saw, name, stops=False, **more):
    for chunk in prompt(name, stream=True, **more):
        saw["text"] += chunk
        if stops and saw["text"]:
            break


def whole(saw):
    answer = prompt("whole", stream=False)
    saw["text"] = answer.text()
    assert answer.usage().input > 0


def tools(saw, name, **more):
    calls = prompt(name, tools=[weather], **more).tool_calls()
    saw["tools"] = [{"id": call.tool_call_id, "name": call.name, "arguments": call.arguments} for call in calls]


for name in ["stream", "retried", "error-in-stream", "cut"]:
    case(CLIENT, name, lambda saw, name=name: stream(saw, name))
case(CLIENT, "whole", whole)
case(CLIENT, "unauthorized", lambda saw: stream(saw, "unauthorized", token="no token"))
case(CLIENT, "tools-stream", lambda saw: tools(saw, "tools-stream", stream=True))
case(CLIENT, "tools", lambda saw: tools(saw, "tools", stream=False))
case(CLIENT, "abort", lambda saw: stream(saw, "abort", stops=True))
