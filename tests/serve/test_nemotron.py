"""Nemotron Nano 2's chats: calls in one list between markers, and words in messages that say whether to think."""
import json

import pytest

from conftest import running
from markers import with_markers

MARKERS = ["<SPECIAL_10>", "<think>", "</think>", "<TOOLCALL>", "</TOOLCALL>", "<TOOL_RESPONSE>", "</TOOL_RESPONSE>", "<AVAILABLE_TOOLS>", "</AVAILABLE_TOOLS>"]
TURN = ("<SPECIAL_11>", "<SPECIAL_12>")
TEMPLATE = "{{ bos_token }} <SPECIAL_10> <SPECIAL_11> <SPECIAL_12> <TOOLCALL>"  # bits by which it is known
TOOLS = [{"type": "function", "function": {
    "name": name, "description": f"To {name} a letter.",
    "parameters": {"type": "object", "properties": {"to": {"type": "string", "maxLength": 12}, "sealed": {"type": "boolean"}}, "required": ["to", "sealed"]}}}
    for name in ("write", "burn")]
ASK = [{"role": "user", "content": "Write to Jane, if you please. /no_think"}]


@pytest.fixture(scope="module")
def server(program, tmp_path_factory):
    model = with_markers(tmp_path_factory.mktemp("nemotron") / "model.gguf", MARKERS, TURN, TEMPLATE, bos="<SPECIAL_12>")
    with running(program, "--quiet", "--store", str(tmp_path_factory.mktemp("store")), model=model) as one:
        yield one


def ask(client, **kwargs):
    return client.chat.completions.create(**{"model": "any", "messages": ASK, "max_tokens": 600, "temperature": 1.1, **kwargs})


def check(call):
    arguments = json.loads(call.function.arguments)
    assert call.function.name in ("write", "burn") and set(arguments) == {"to", "sealed"}
    assert len(arguments["to"]) <= 12 and isinstance(arguments["sealed"], bool)


def test_calls_that_are_forced(client):
    for seed in range(4):
        choice = ask(client, tools=TOOLS, tool_choice="required", seed=seed, parallel_tool_calls=False).choices[0]
        assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
        (call,) = choice.message.tool_calls
        check(call)
    for call in ask(client, tools=TOOLS, tool_choice="required").choices[0].message.tool_calls:
        check(call)
    stream = [chunk.choices[0].delta for chunk in ask(client, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "burn"}}, stream=True,
                                                      parallel_tool_calls=False)]
    (call, *_) = [part for delta in stream for part in delta.tool_calls or []]
    assert call.function.name == "burn"


def test_messages_say_whether_to_think(client, server):
    def says(content, **kwargs):
        return ask(client, messages=[{"role": "user", "content": content}], max_tokens=12, temperature=0, **kwargs).choices[0].message
    assert says("Who is Mr. Darcy? /no_think").content
    for thinks in (says("Who is Mr. Darcy?"), says("Who is Mr. Darcy? /no_think", extra_body={"chat_template_kwargs": {"enable_thinking": True}})):
        assert thinks.reasoning_content and not thinks.content
    message = server.anthropic().messages.create(model="any", max_tokens=12, messages=ASK, extra_body={"temperature": 0})
    assert [block.type for block in message.content] == ["text"]


def test_messages_of_a_chat_with_calls(server):
    call = {"id": "x", "type": "function", "function": {"name": "write", "arguments": '{"to":"Jane","sealed":true}'}}
    messages = [*ASK, {"role": "assistant", "content": "At once.", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "x", "content": "Done."}]
    answer = server.post("/v1/chat/completions", {"messages": messages, "tools": TOOLS, "max_tokens": 0, "session": "told"})
    assert answer.status_code == 200, answer.text
    shown = [(message["role"], message["content"]) for message in server.get("/v1/capsules/told").json()["messages"]]
    assert [role for role, _ in shown] == ["system", "user", "assistant", "user", "assistant"]
    assert '[{"name": "write", "description": "To write a letter.", "parameters": {' in shown[0][1]
    assert shown[1][1] == "Write to Jane, if you please."
    assert "At once." in shown[2][1] and '[{"name": "write", "arguments": {"to": "Jane", "sealed": true}}]' in shown[2][1]
    assert "Done." in shown[3][1]
    # It goes on behind what was said: nothing of the system's is said again.
    more = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "And?"}], "max_tokens": 1, "session": "told"})
    assert more.json()["usage"]["prompt_tokens_details"]["cached_tokens"] >= answer.json()["usage"]["prompt_tokens"]


def test_a_prompt_begins_with_the_token_that_the_template_writes(server):
    text = "<SPECIAL_10>System\n\n<SPECIAL_11>User\nWrite to Jane, if you please.\n<SPECIAL_11>Assistant\n<think></think>"
    tokens = server.post("/tokenize", {"content": text, "parse_special": True, "add_special": False}).json()["tokens"]
    counted = server.post("/v1/messages/count_tokens", {"model": "any", "messages": ASK}).json()["input_tokens"]
    answer = server.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 1})
    assert counted == answer.json()["usage"]["prompt_tokens"] == len(tokens) + 1
