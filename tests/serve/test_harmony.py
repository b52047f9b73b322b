"""Harmony's chats (gpt-oss): answers are messages, and a call is one of them. The embedded model is given Harmony's markers in place of words that it
hardly ever says; it knows nothing of them, so what is called is what the server holds it to."""
import json

import anthropic
import openai
import pytest

from conftest import running
from markers import with_markers

MARKERS = ["<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>"]
TOOLS = [{"type": "function", "function": {
    "name": name, "description": f"To {name} a letter.",
    "parameters": {"type": "object", "properties": {"to": {"type": "string", "maxLength": 12}, "pages": {"type": "integer", "minimum": 1, "maximum": 40}},
                   "required": ["to", "pages"]}}} for name in ("write", "burn")]
ANTHROPIC_TOOLS = [{"name": t["function"]["name"], "description": t["function"]["description"], "input_schema": t["function"]["parameters"]} for t in TOOLS]
ASK = [{"role": "user", "content": "Write to Jane, if you please."}]
TEMPLATE = """{{- "<|start|>" }}{{- "functions." + tool_call.name + "<|channel|>commentary " }}{{- "<|call|>" }}"""  # bits by which it is known


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return with_markers(tmp_path_factory.mktemp("harmony") / "model.gguf", MARKERS, ("<|start|>", "<|return|>"), TEMPLATE)


@pytest.fixture(scope="module")
def server(program, model, tmp_path_factory):
    with running(program, "--quiet", "--store", str(tmp_path_factory.mktemp("store")), model=model) as one:
        yield one


def ask(client, **kwargs):
    return client.chat.completions.create(**{"model": "any", "messages": ASK, "tools": TOOLS, "max_tokens": 400, "temperature": 1.1, "reasoning_effort": "none",
                                             **kwargs})


def check(name, arguments):
    assert name in ("write", "burn") and set(arguments) == {"to", "pages"}
    assert len(arguments["to"]) <= 12 and 1 <= arguments["pages"] <= 40


def test_calls_that_are_forced(client):
    for seed in range(4):
        choice = ask(client, tool_choice="required", seed=seed).choices[0]
        assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
        (call,) = choice.message.tool_calls
        check(call.function.name, json.loads(call.function.arguments))
    named = ask(client, tool_choice={"type": "function", "function": {"name": "burn"}}).choices[0].message
    assert [call.function.name for call in named.tool_calls] == ["burn"]


def test_calls_in_streams(server, client):
    whole = ask(client, tool_choice="required", temperature=0).choices[0].message.tool_calls[0].function
    chunks = [chunk.choices[0] for chunk in ask(client, tool_choice="required", temperature=0, stream=True)]
    assert not any(chunk.delta.content for chunk in chunks) and chunks[-1].finish_reason == "tool_calls"
    parts = [part for chunk in chunks for part in chunk.delta.tool_calls or []]
    assert parts[0].function.name == whole.name and parts[0].id
    assert "".join(part.function.arguments for part in parts) == whole.arguments
    with server.anthropic().messages.stream(model="any", max_tokens=400, messages=ASK, tools=ANTHROPIC_TOOLS, tool_choice={"type": "any"},
                                            thinking={"type": "disabled"}, extra_body={"temperature": 0}) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    assert "content_block_start" in kinds and message.stop_reason == "tool_use"
    (block,) = message.content
    assert block.type == "tool_use" and block.name == whole.name and block.input == json.loads(whole.arguments)


def test_a_result_computes_itself_and_nothing_else(program, model, server, client):
    """However a call is spelled: the next prompt goes on from the very tokens that were generated."""
    differs = 0
    for seed in range(4):
        messages = [*ASK, {"role": "user", "content": f"The {seed}th time."}]
        for _ in range(2):
            answer = ask(client, messages=messages, tool_choice="required", seed=seed)
            (call,) = answer.choices[0].message.tool_calls
            messages += [{"role": "assistant", "tool_calls": [call.model_dump()]}, {"role": "tool", "tool_call_id": call.id, "content": "Done."}]
            more = ask(client, messages=messages, max_tokens=1)
            # Of the last prompt and its answer all but the marker that ended it.
            assert more.model_extra["reprise"]["known"] >= answer.usage.total_tokens - 1
            assert more.usage.prompt_tokens_details.cached_tokens >= answer.usage.total_tokens - 1
        with running(program, "--quiet", model=model) as forgetful:
            differs += ask(forgetful.openai(), messages=messages, max_tokens=1).usage.prompt_tokens != more.usage.prompt_tokens
        if differs:
            break
    assert differs, "otherwise this shows nothing"
    theirs = server.anthropic()
    settings = {"model": "any", "max_tokens": 400, "tools": ANTHROPIC_TOOLS, "thinking": {"type": "disabled"}}
    message = theirs.messages.create(messages=ASK, tool_choice={"type": "any"}, **settings)
    used = message.usage.input_tokens + message.usage.cache_read_input_tokens + message.usage.output_tokens
    more = theirs.messages.create(**{**settings, "max_tokens": 1}, messages=[
        *ASK, {"role": "assistant", "content": [block.model_dump() for block in message.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": message.content[0].id, "content": "Done."}]}])
    assert more.usage.cache_read_input_tokens >= used - 1


def test_both_kinds_of_clients_tell_the_same(server, client):
    call = {"id": "call_1", "type": "function", "function": {"name": "write", "arguments": '{"to":"Jane","pages":2}'}}
    ours = ask(client, max_tokens=1, messages=[*ASK, {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
                                               {"role": "tool", "tool_call_id": "call_1", "content": "Written."}]).usage.prompt_tokens
    theirs = server.anthropic().messages.count_tokens(model="any", tools=ANTHROPIC_TOOLS, thinking={"type": "disabled"}, messages=[
        *ASK, {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""},
                                                {"type": "tool_use", "id": "toolu_1", "name": "write", "input": {"to": "Jane", "pages": 2}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Written."}]}]}]).input_tokens
    assert theirs == ours
    none = ask(client, max_tokens=1, messages=ASK, reasoning_effort=openai.omit).usage.prompt_tokens
    plain = ask(client, max_tokens=1, messages=ASK, reasoning_effort=openai.omit, tools=openai.omit).usage.prompt_tokens
    assert none > plain + 100, "the model is told of them"


def test_messages_of_a_chat_with_calls(server):
    call = {"id": "x", "type": "function", "function": {"name": "write", "arguments": '{"to":"Jane"}'}}
    messages = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "x", "content": "Done."}]
    answer = server.post("/v1/chat/completions", {"messages": messages, "tools": TOOLS, "max_tokens": 0, "session": "told"})
    assert answer.status_code == 200, answer.text
    shown = [(message["role"], message["content"]) for message in server.get("/v1/capsules/told").json()["messages"]]
    assert "namespace functions {" in shown[0][1] and "type write = (_: {\nto: string,\npages: number,\n}) => any;" in shown[0][1]
    assert shown[2:4] == [("assistant", ' to=functions.write<|channel|>commentary json<|message|>{"to": "Jane"}'), ("tool", '"Done."')]


def test_a_session_knows_which_tool_it_called(server, client):
    answer = ask(client, tool_choice={"type": "function", "function": {"name": "burn"}}, extra_body={"session": "burning"})
    (call,) = answer.choices[0].message.tool_calls
    more = ask(client, max_tokens=0, messages=[{"role": "tool", "tool_call_id": call.id, "content": "Ash."}], extra_body={"session": "burning"})
    assert more.usage.prompt_tokens > answer.usage.total_tokens
    messages = server.get("/v1/capsules/burning").json()["messages"]
    assert [message["role"] for message in messages[-4:]] == ["user", "assistant", "tool", "assistant"]
    assert "functions.burn to=assistant" in json.dumps(server.get("/v1/capsules/tree").json())


def test_a_result_of_no_call_is_refused(server, client):
    with pytest.raises(openai.BadRequestError, match="message 1 is the result of a tool, and nothing before it says of which"):
        ask(client, messages=[*ASK, {"role": "tool", "tool_call_id": "x", "content": "Done."}])
    with pytest.raises(anthropic.BadRequestError, match="nothing before it says of which"):
        server.anthropic().messages.create(model="any", max_tokens=1, tools=ANTHROPIC_TOOLS, messages=[
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "Done."}]}])


def test_what_may_not_be_called_is_an_answer(client):
    """Without thinking and without calls the header of the final message is the prompt's, and all that is said is content."""
    message = ask(client, tool_choice="none", max_tokens=12).choices[0].message
    assert message.content and not message.tool_calls and not getattr(message, "reasoning_content", None)
    one = ask(client, tool_choice="none", max_tokens=1).usage.prompt_tokens
    assert one > ask(client, tool_choice="auto", max_tokens=1).usage.prompt_tokens
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}}
    for seed in range(3):
        message = ask(client, response_format=shape, seed=seed).choices[0].message
        if message.tool_calls:
            check(message.tool_calls[0].function.name, json.loads(message.tool_calls[0].function.arguments))
        else:
            assert isinstance(json.loads(message.content)["n"], int)


def test_hostile_schemas_are_told_or_refused(server):
    deep = {"type": "string"}
    for _ in range(26):
        deep = {"type": "object", "properties": {"x": deep}}
    for parameters in ({"properties": {"x": 7, "y": [], "z": {"type": {}}}}, {"properties": []}, {"properties": {"x": {"enum": {}, "oneOf": 1}}}, deep,
                       {"properties": {f"p{i}": {"type": "string"} for i in range(512)}, "required": [f"q{i}" for i in range(20000)]}):
        answer = server.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 0, "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]})
        assert answer.status_code == 200, answer.text
    for parameters in (7, [], "object"):
        answer = server.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 0, "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]})
        assert answer.status_code == 400 and "must be a JSON schema" in answer.json()["error"]["message"]
