"""Runs the cases with LangChain's unmodified ChatOpenAI and OpenAIEmbeddings."""

from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from report import GATEWAY, TOKEN, case, tag

CLIENT = "langchain-python"
QUESTION = "How is the weather?"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]


def model(name, token=TOKEN, retries=2):
    return ChatOpenAI(model=name, base_url=f"{GATEWAY}/v1", api_key=token, max_retries=retries, default_headers=tag(CLIENT, name))


def stream(saw, name, **more):
    for chunk in model(name, **more).stream(QUESTION):
        saw["text"] += chunk.text


def whole(saw):
    saw["text"] = model("whole").invoke(QUESTION).text


def called(message):
    return [{"id": call["id"], "name": call["name"], "arguments": call["args"]} for call in message.tool_calls]


def tools_stream(saw):
    answer = None
    for chunk in model("tools-stream").bind_tools(TOOLS).stream(QUESTION):
        answer = chunk if answer is None else answer + chunk
    saw["tools"] = called(answer)


def tools(saw):
    saw["tools"] = called(model("tools").bind_tools(TOOLS).invoke(QUESTION))


def abort(saw):
    chunks = model("abort").stream(QUESTION)
    for chunk in chunks:
        saw["text"] += chunk.text
        if saw["text"]:
            break
    chunks.close()


def embeddings(saw):
    # Without the count of tokens in the client, which would download a tokenizer.
    model = OpenAIEmbeddings(
        model="embeddings", base_url=f"{GATEWAY}/v1", api_key=TOKEN, check_embedding_ctx_length=False,
        default_headers=tag(CLIENT, "embeddings"),
    )
    vectors = model.embed_documents(["first", "second"])
    assert all(len(vector) == 3 for vector in vectors)
    saw["text"] = f"{len(vectors)} vectors"


for name in ["stream", "retried", "error-in-stream", "cut"]:
    case(CLIENT, name, lambda saw, name=name: stream(saw, name))
case(CLIENT, "whole", whole)
case(CLIENT, "limited", lambda saw: stream(saw, "limited", retries=0))
case(CLIENT, "unauthorized", lambda saw: stream(saw, "unauthorized", token="no token"))
case(CLIENT, "tools-stream", tools_stream)
case(CLIENT, "tools", tools)
case(CLIENT, "abort", abort)
case(CLIENT, "embeddings", embeddings)
