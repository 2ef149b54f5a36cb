"""Runs the cases with the unmodified models of Pydantic AI."""

import asyncio
import json

from openai import AsyncOpenAI
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelRequest, TextPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

from report import GATEWAY, TOKEN, case, tag

CLIENT = "pydantic-ai-python"
QUESTION = [ModelRequest.user_text_prompt("How is the weather?")]
TOOL = ToolDefinition(name="weather", parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}})
TOOLS = ModelRequestParameters(function_tools=[TOOL])


def model(name, token=TOKEN, retries=2):
    headers = tag(CLIENT, name)
    openai = AsyncOpenAI(base_url=f"{GATEWAY}/v1", api_key=token, max_retries=retries, default_headers=headers)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=openai))


def texts(response):
    return "".join(part.content for part in response.parts if isinstance(part, TextPart))


def called(response):
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    return [{"id": call.tool_call_id, "name": call.tool_name, "arguments": json.loads(call.args_as_json_str())} for call in calls]


async def stream(saw, name, parameters=None, stops=False, **more):
    async with model_request_stream(model(name, **more), QUESTION, model_request_parameters=parameters) as events:
        async for _ in events:
            response = events.get()
            saw["text"], saw["tools"] = texts(response), called(response) if parameters else []
            if stops and saw["text"]:
                break


async def whole(saw, name, parameters=None):
    response = await model_request(model(name), QUESTION, model_request_parameters=parameters)
    saw["text"], saw["tools"] = texts(response), called(response)
    assert response.usage.input_tokens > 0


def run(name, steps):
    case(CLIENT, name, lambda saw: asyncio.run(steps(saw)))


for name in ["stream", "retried", "error-in-stream", "cut"]:
    run(name, lambda saw, name=name: stream(saw, name))
run("whole", lambda saw: whole(saw, "whole"))
run("limited", lambda saw: stream(saw, "limited", retries=0))
run("unauthorized", lambda saw: stream(saw, "unauthorized", token="no token"))
run("tools-stream", lambda saw: stream(saw, "tools-stream", TOOLS))
run("tools", lambda saw: whole(saw, "tools", TOOLS))
run("abort", lambda saw: stream(saw, "abort", stops=True))
