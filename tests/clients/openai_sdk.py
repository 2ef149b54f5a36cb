"""Runs the cases with OpenAI's unmodified Python SDK."""

import json

from openai import OpenAI

from report import GATEWAY, QUESTION, TOKEN, case, tag

CLIENT = "openai-python"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]


def client(name, token=TOKEN, retries=2):
    return OpenAI(base_url=f"{GATEWAY}/v1", api_key=token, max_retries=retries, default_headers=tag(CLIENT, name))


def stream(saw, name, **more):
    with client(name, **more).chat.completions.create(model=name, messages=QUESTION, stream=True) as chunks:
        for chunk in chunks:
            for choice in chunk.choices:
                saw["text"] += choice.delta.content or ""


def whole(saw, name, **more):
    answer = client(name, **more).chat.completions.create(model=name, messages=QUESTION)
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


def responses_stream(saw):
    for event in client("responses-stream").responses.create(model="responses-stream", input="How is the weather?", stream=True):
        if event.type == "response.output_text.delta":
            saw["text"] += event.delta


def responses(saw):
    saw["text"] = client("responses").responses.create(model="responses", input="How is the weather?").output_text


def background(saw):
    responses = client("background").responses
    answer = responses.create(model="background", input="How is the weather?", background=True)
    assert answer.status == "queued", answer.status
    while answer.status in {"queued", "in_progress"}:
        answer = responses.retrieve(answer.id)
    saw["text"] = answer.output_text


def models(saw):
    saw["text"] = " ".join(model.id for model in client("models").models.list())


def embeddings(saw):
    made = client("embeddings").embeddings.create(model="embeddings", input=["first", "second"])
    assert all(len(vector.embedding) == 3 for vector in made.data)
    saw["text"] = f"{len(made.data)} vectors, {made.usage.total_tokens} tokens"


def images(saw):
    made = client("images").images.generate(model="images", prompt="a red square", n=2)
    saw["text"] = f"{len(made.data)} pictures, {made.usage.total_tokens} tokens"


def image_edit(saw):
    picture = ("square.png", b"\x89PNG" + bytes(400_000), "image/png")
    made = client("image-edit").images.edit(model="image-edit", image=picture, prompt="make it blue")
    saw["text"] = f"{len(made.data)} pictures, {made.usage.total_tokens} tokens"


def speech(saw):
    with client("speech").audio.speech.with_streaming_response.create(model="speech", voice="alloy", input="Good morning.") as answer:
        saw["text"] = f"{sum(len(piece) for piece in answer.iter_bytes())} bytes"


def transcription(saw):
    sound = ("morning.wav", b"RIFF" + bytes(400_000), "audio/wav")
    saw["text"] = client("transcription").audio.transcriptions.create(model="transcription", file=sound).text


for name in ["stream", "retried", "error-in-stream", "cut"]:
    case(CLIENT, name, lambda saw, name=name: stream(saw, name))
case(CLIENT, "whole", lambda saw: whole(saw, "whole"))
case(CLIENT, "limited", lambda saw: stream(saw, "limited", retries=0))
case(CLIENT, "unauthorized", lambda saw: stream(saw, "unauthorized", token="no token"))
case(CLIENT, "tools-stream", tools_stream)
case(CLIENT, "tools", tools)
case(CLIENT, "abort", abort)
case(CLIENT, "responses-stream", responses_stream)
case(CLIENT, "responses", responses)
case(CLIENT, "background", background)
case(CLIENT, "models", models)
case(CLIENT, "embeddings", embeddings)
case(CLIENT, "images", images)
case(CLIENT, "image-edit", image_edit)
case(CLIENT, "speech", speech)
case(CLIENT, "transcription", transcription)
