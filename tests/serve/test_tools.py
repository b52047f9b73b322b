"""Tools: what the model is told of them, and that turns with calls are never read twice."""
import json

import anthropic
import openai
import pytest

from conftest import events, running, until

TOOLS = [{"type": "function", "function": {
    "name": name, "description": f"To {name} a letter.",
    "parameters": {"type": "object", "properties": {"to": {"type": "string", "enum": ["Jane", "Bingley"]}, "pages": {"type": "integer"}},
                   "required": ["to"]}}} for name in ("write", "burn")]
ANTHROPIC_TOOLS = [{"name": t["function"]["name"], "description": t["function"]["description"], "input_schema": t["function"]["parameters"]} for t in TOOLS]
ASK = [{"role": "user", "content": "Write to Jane, if you please."}]


def call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def prompt_tokens(client, **kwargs):
    return client.chat.completions.create(model="any", max_tokens=1, temperature=0, **kwargs).usage


def test_tools_are_told_and_shared(client, server):
    plain = prompt_tokens(client, messages=ASK)
    told = prompt_tokens(client, messages=ASK, tools=TOOLS)
    assert told.prompt_tokens > plain.prompt_tokens + 100
    other = prompt_tokens(client, messages=[{"role": "user", "content": "Another letter altogether."}], tools=TOOLS)
    assert other.prompt_tokens_details.cached_tokens > told.prompt_tokens * 3 // 4, "conversations with the same tools share them"
    none = prompt_tokens(client, messages=ASK, tools=TOOLS, tool_choice="none")
    assert none.prompt_tokens == told.prompt_tokens, "to forbid them changes nothing of the prompt"
    counted = server.anthropic().messages.count_tokens(model="any", messages=ASK, tools=ANTHROPIC_TOOLS).input_tokens
    assert counted == told.prompt_tokens, "both kinds of clients tell the model the same"


def test_a_day_with_tools(client, server):
    """Calls and results as both clients write them are one prompt."""
    messages = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call("call_1", "write", '{"to":"Jane","pages":2}')]},
                {"role": "tool", "tool_call_id": "call_1", "content": "Written."}]
    ours = prompt_tokens(client, messages=messages, tools=TOOLS)
    theirs = server.anthropic().messages.count_tokens(model="any", tools=ANTHROPIC_TOOLS, messages=[
        *ASK, {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "write", "input": {"to": "Jane", "pages": 2}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Written."}]}]}]).input_tokens
    assert theirs == ours.prompt_tokens


def test_answers_that_come_back_are_not_read_again(client):
    """Sampled text is seldom spelled in the tokens that encoding it gives; yet what was generated is what is found."""
    near = 16  # a boundary no further past one that is kept is not kept itself: a short answer is known, and computed again
    for seed in range(6):
        messages = [{"role": "user", "content": f"Say what you like, the {seed}th time."}]
        for turn in range(3):
            answer = client.chat.completions.create(model="any", messages=messages, max_tokens=24, temperature=1.5, seed=seed * 10 + turn)
            usage = answer.usage
            if turn > 0:
                # Of the last prompt and its answer all but the token that was chosen last.
                assert answer.model_extra["reprise"]["known"] >= before - 1, (seed, turn)
                assert usage.prompt_tokens_details.cached_tokens >= before - 1 - near, (seed, turn)
            before = usage.total_tokens if answer.choices[0].finish_reason == "length" else usage.total_tokens - 1
            messages += [{"role": "assistant", "content": answer.choices[0].message.content}, {"role": "user", "content": "And then?"}]


def test_answers_are_known_after_a_restart(program, tmp_path):
    """With a store, a server that starts again goes on from the very tokens that it gave; so does another that runs on the same directory."""
    messages = [{"role": "user", "content": "Say what you like."}]
    flags = ("--quiet", "--store", str(tmp_path / "store"))
    with running(program, *flags) as beside, running(program, *flags) as server:
        for turn in range(4):  # sampled text: what it is spelled in is seldom what encoding it gives
            answer = server.openai().chat.completions.create(model="any", messages=messages, max_tokens=48, temperature=1.5, seed=turn)
            messages += [{"role": "assistant", "content": answer.choices[0].message.content}, {"role": "user", "content": "And then?"}]
        before = prompt_tokens(server.openai(), messages=messages).prompt_tokens
        until(lambda: prompt_tokens(beside.openai(), messages=messages).prompt_tokens == before)
    with running(program, *flags) as server:
        assert prompt_tokens(server.openai(), messages=messages).prompt_tokens == before
    with running(program, "--quiet") as forgetful:
        assert prompt_tokens(forgetful.openai(), messages=messages).prompt_tokens != before, "otherwise this shows nothing"


@pytest.mark.parametrize("body, field", [
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": TOOLS + TOOLS[:1]}, "tools[2].function.name"),
    ({"tools": TOOLS, "tool_choice": "perhaps"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "seal"}}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"messages": [*ASK, {"role": "assistant", "tool_calls": [call("x", "write", "[1]")]}]}, "messages[1].tool_calls[0].function.arguments"),
    ({"messages": [*ASK, {"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "messages[1].tool_calls[0].function"),
])
def test_errors_name_the_field(server, body, field):
    answer = server.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 1, **body})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == field


def test_errors_in_anthropics_form(server):
    client = server.anthropic()
    for tools, choice in [([{"type": "bash_20250124", "name": "bash"}], None), ([{"name": "a b", "input_schema": {}}], None),
                          (ANTHROPIC_TOOLS, {"type": "tool", "name": "seal"}), (ANTHROPIC_TOOLS, {"type": "perhaps"})]:
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(model="any", max_tokens=1, messages=ASK, tools=tools, **({"tool_choice": choice} if choice else {}))


def test_plain_text_has_no_place_for_tools(program):
    with running(program, "--quiet", "--chat-template", "plain") as plain, pytest.raises(openai.BadRequestError, match="no words for tools"):
        plain.openai().chat.completions.create(model="any", max_tokens=1, messages=ASK, tools=TOOLS)
