"""Mistral's chats before their thirteenth version, where calls and results go by ids of nine letters and digits that the model gives."""
import json
import re

import openai
import pytest

from conftest import running
from markers import with_markers
from rounds import check_rounds

MARKERS = ["[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[TOOL_RESULTS]",
           "[/TOOL_RESULTS]", "[TOOL_CONTENT]"]
# Bits by which they are known.
TEMPLATES = {"v3": "'[INST]' '[/INST]' '[TOOL_CALLS]' call_id",
             "v7": "'[INST]' '[/INST]' '[SYSTEM_PROMPT]' '[TOOL_CALLS]' tool_call_id",
             "v11": "'[INST]' '[/INST]' '[SYSTEM_PROMPT]' '[TOOL_CALLS]' '[CALL_ID]' '[ARGS]'"}
TOOLS = [{"type": "function", "function": {
    "name": name, "description": f"To {name} a letter.",
    "parameters": {"type": "object", "properties": {"to": {"type": "string", "maxLength": 12}, "pages": {"type": "integer", "minimum": 1, "maximum": 40}},
                   "required": ["to", "pages"]}}} for name in ("write", "burn")]
ASK = [{"role": "user", "content": "Write to Jane, if you please."}]


@pytest.fixture(scope="module", params=TEMPLATES)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def server(program, version, tmp_path_factory):
    model = with_markers(tmp_path_factory.mktemp("mistral") / "model.gguf", MARKERS, ("[INST]", "</s>"), TEMPLATES[version])
    with running(program, "--quiet", "--store", str(tmp_path_factory.mktemp("store")), model=model) as one:
        yield one


def ask(client, **kwargs):
    return client.chat.completions.create(**{"model": "any", "messages": ASK, "tools": TOOLS, "max_tokens": 600, "temperature": 1.1, **kwargs})


def check(call):
    arguments = json.loads(call.function.arguments)
    assert call.function.name in ("write", "burn") and set(arguments) == {"to", "pages"}
    assert len(arguments["to"]) <= 12 and 1 <= arguments["pages"] <= 40
    assert re.fullmatch("[A-Za-z0-9]{9}", call.id), call.id


def test_calls_that_are_forced(client):
    for seed in range(3):
        choice = ask(client, tool_choice="required", seed=seed, parallel_tool_calls=False).choices[0]
        assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
        (call,) = choice.message.tool_calls
        check(call)
    # Of several each has an id of its own, and the model need not come to an end.
    calls = ask(client, tool_choice="required", max_tokens=900).choices[0].message.tool_calls
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        check(call)
    stream = [chunk.choices[0].delta for chunk in ask(client, tool_choice={"type": "function", "function": {"name": "burn"}}, stream=True)]
    (call, *_) = [part for delta in stream for part in delta.tool_calls or []]
    assert call.function.name == "burn" and re.fullmatch("[A-Za-z0-9]{9}", call.id)


def test_a_result_computes_itself_and_nothing_else(client):
    for seed in range(2):
        check_rounds(ask, client, [*ASK, {"role": "user", "content": f"The {seed}th time."}], seed=seed)


def test_results_go_by_the_ids_of_their_calls(server, version):
    call = {"id": "abcDEF123", "type": "function", "function": {"name": "write", "arguments": '{"to":"Jane","pages":2}'}}
    other = {"id": "call_with_another_kind_of_id", "type": "function", "function": {"name": "burn", "arguments": "{}"}}
    messages = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call, other]}, {"role": "tool", "tool_call_id": other["id"], "content": "Ash."},
                {"role": "tool", "tool_call_id": "abcDEF123", "content": '{"lines": [1,2]}'}]
    answer = server.post("/v1/chat/completions", {"messages": messages, "tools": TOOLS, "max_tokens": 0, "session": "told"})
    assert answer.status_code == 200, answer.text
    shown = [(message["role"], message["content"]) for message in server.get("/v1/capsules/told").json()["messages"]]
    assert [role for role, _ in shown] == ["user", "assistant", "tool", "tool", "assistant"]
    made = re.search(r'"id": "(?!abc)(.{9})"|burn\[CALL_ID\](.{9})', shown[1][1])
    made = made[1] or made[2]
    results = [f'{{"content": "Ash.", "call_id": "{made}"}}', '{"content": {"lines": [1, 2]}, "call_id": "abcDEF123"}'] if version == "v3" else [
        f"{made}[TOOL_CONTENT]Ash.", 'abcDEF123[TOOL_CONTENT]{"lines": [1,2]}']
    assert [content for _, content in shown[2:4]] == results
    assert ("[CALL_ID]abcDEF123[ARGS]" in shown[1][1]) == (version == "v11")


def test_a_session_goes_on_after_a_call(server, client):
    answer = ask(client, tool_choice="required", parallel_tool_calls=False, extra_body={"session": "burning"})
    (call,) = answer.choices[0].message.tool_calls
    more = ask(client, max_tokens=3, messages=[{"role": "tool", "tool_call_id": call.id, "content": "Ash."}], tool_choice="none", extra_body={"session": "burning"})
    assert more.usage.prompt_tokens_details.cached_tokens >= answer.usage.total_tokens - 2
    messages = server.get("/v1/capsules/burning").json()["messages"]
    assert [message["role"] for message in messages[-3:]] == ["assistant", "tool", "assistant"] and call.id in messages[-2]["content"]
    with pytest.raises(openai.BadRequestError, match="message 1 is the result of a tool, and does not say of which call"):
        ask(client, messages=[*ASK, {"role": "tool", "content": "Done."}])
