"""LFM2's chats, where calls are Python's: a list of functions with their arguments by name."""
import json

import pytest

from conftest import running
from markers import with_markers
from rounds import check_rounds

MARKERS = ["<|tool_list_start|>", "<|tool_list_end|>", "<|tool_call_start|>", "<|tool_call_end|>", "<|tool_response_start|>", "<|tool_response_end|>"]
# Bits by which they are known.
TEMPLATES = {"LFM2": "<|im_start|> <|im_end|> 'List of tools: <|tool_list_start|>['", "LFM2.5": "<|im_start|> <|im_end|> 'List of tools: ['"}
TOOLS = [{"type": "function", "function": {
    "name": name, "description": f"To {name} a letter.",
    "parameters": {"type": "object", "properties": {"to": {"type": "string", "maxLength": 12}, "pages": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
                                                    "sealed": {"type": "boolean"}}, "required": ["to", "sealed"]}}} for name in ("write", "burn")]
ASK = [{"role": "user", "content": "Write to Jane, if you please."}]


@pytest.fixture(scope="module", params=TEMPLATES)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def server(program, version, tmp_path_factory):
    model = with_markers(tmp_path_factory.mktemp("lfm2") / "model.gguf", MARKERS, ("<|im_start|>", "<|im_end|>"), TEMPLATES[version])
    with running(program, "--quiet", "--store", str(tmp_path_factory.mktemp("store")), model=model) as one:
        yield one


def ask(client, **kwargs):
    return client.chat.completions.create(**{"model": "any", "messages": ASK, "tools": TOOLS, "max_tokens": 600, "temperature": 1.1, **kwargs})


def check(call):
    arguments = json.loads(call.function.arguments)
    assert call.function.name in ("write", "burn") and {"to", "sealed"} <= set(arguments) <= {"to", "pages", "sealed"}
    assert len(arguments["to"]) <= 12 and isinstance(arguments["sealed"], bool) and all(isinstance(page, int) for page in arguments.get("pages", []))


def test_calls_that_are_forced(client):
    for seed in range(4):
        choice = ask(client, tool_choice="required", seed=seed, parallel_tool_calls=False).choices[0]
        assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
        (call,) = choice.message.tool_calls
        check(call)
    for call in ask(client, tool_choice="required").choices[0].message.tool_calls:
        check(call)
    stream = [chunk.choices[0].delta for chunk in ask(client, tool_choice={"type": "function", "function": {"name": "burn"}}, stream=True)]
    (call, *_) = [part for delta in stream for part in delta.tool_calls or []]
    assert call.function.name == "burn"


def test_a_result_computes_itself_and_nothing_else(client):
    for seed in range(2):
        check_rounds(ask, client, [*ASK, {"role": "user", "content": f"The {seed}th time."}], seed=seed)


def test_messages_of_a_chat_with_calls(server, version):
    call = {"id": "x", "type": "function", "function": {"name": "write", "arguments": '{"to":"Jane","pages":[2],"sealed":true}'}}
    messages = [*ASK, {"role": "assistant", "content": "At once.", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "x", "content": "Done."}]
    answer = server.post("/v1/chat/completions", {"messages": messages, "tools": TOOLS, "max_tokens": 0, "session": "told"})
    assert answer.status_code == 200, answer.text
    shown = [(message["role"], message["content"]) for message in server.get("/v1/capsules/told").json()["messages"]]
    start, end = ("<|tool_list_start|>", "<|tool_list_end|>") if version == "LFM2" else ("", "")
    # Markers that no answer has are not shown.
    assert shown[0][1].replace(start, "").replace(end, "").startswith('List of tools: [{"name": "write", "description": "To write a letter.", "parameters": {')
    written = '<|tool_call_start|>[write(to="Jane", pages=[2], sealed=True)]<|tool_call_end|>'
    assert shown[2] == ("assistant", written + "At once." if version == "LFM2" else "At once." + written)
    assert shown[3][0] == "tool" and "Done." in shown[3][1]
