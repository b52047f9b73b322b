"""Answers that must be something: JSON, JSON of a schema, a call of a tool. The model knows nothing, so what holds is held by the server."""
import json
import re

import anthropic
import openai
import pytest

from conftest import running

ASK = [{"role": "user", "content": "Who was at the ball?"}]
SCHEMA = {"type": "object",
          "properties": {"name": {"enum": ["Jane", "Elizabeth", "Mr. Darcy"]}, "dances": {"type": "integer", "minimum": 0, "maximum": 12},
                         "with": {"type": "array", "items": {"type": "string", "maxLength": 10}, "maxItems": 2}, "tired": {"type": "boolean"}},
          "required": ["name", "dances", "with"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "guest", "strict": True, "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {
    "type": "object", "properties": {"to": {"type": "string", "enum": ["Jane", "Bingley"]}, "pages": {"type": "integer", "minimum": 1, "maximum": 40},
                                     "sealed": {"type": "boolean"}, "lines": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3}},
    "required": ["to", "pages", "lines"]}}} for name in ("write", "write_again", "burn")]
ANTHROPIC_TOOLS = [{"name": t["function"]["name"], "input_schema": t["function"]["parameters"]} for t in TOOLS]


def check_guest(text):
    guest = json.loads(text)
    assert list(guest) in (["name", "dances", "with"], ["name", "dances", "with", "tired"])
    assert guest["name"] in SCHEMA["properties"]["name"]["enum"] and 0 <= guest["dances"] <= 12
    assert len(guest["with"]) <= 2 and all(len(one) <= 10 for one in guest["with"])


def check_arguments(arguments):
    assert set(arguments) in ({"to", "pages", "lines"}, {"to", "pages", "lines", "sealed"})
    assert arguments["to"] in ("Jane", "Bingley") and type(arguments["pages"]) is int and 1 <= arguments["pages"] <= 40
    assert 1 <= len(arguments["lines"]) <= 3 and isinstance(arguments.get("sealed", True), bool)


def test_json_of_a_schema(client):
    answer = client.chat.completions.create(model="any", messages=ASK, response_format=FORMAT, max_tokens=400, temperature=1.2, seed=5, n=3)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        check_guest(choice.message.content)
    assert len({choice.message.content for choice in answer.choices}) > 1
    stream = client.chat.completions.create(model="any", messages=ASK, response_format=FORMAT, max_tokens=400, temperature=0, stream=True)
    check_guest("".join(chunk.choices[0].delta.content or "" for chunk in stream))
    # The same chat without it is prose, and its prompt is shared.
    prose = client.chat.completions.create(model="any", messages=ASK, max_tokens=20, temperature=0)
    assert prose.usage.prompt_tokens_details.cached_tokens > answer.usage.prompt_tokens // 2
    with pytest.raises(ValueError):
        json.loads(prose.choices[0].message.content)


def test_patterns_and_bounds(client):
    """As Pydantic writes them: constr(pattern=...), Field(gt=0, le=1), condecimal."""
    schema = {"type": "object", "properties": {"day": {"type": "string", "pattern": r"^\d{4}-(0[1-9]|1[0-2])-\d{2}$"},
                                               "mail": {"type": "string", "pattern": r"^[\w.]{1,8}@[a-z]{1,8}\.(com|org)$"},
                                               "chance": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                                               "price": {"type": "number", "minimum": -2.5, "maximum": 99.5, "multipleOf": 0.01}},
              "required": ["day", "mail", "chance", "price"], "additionalProperties": False}
    answer = client.chat.completions.create(model="any", messages=ASK, max_tokens=400, temperature=1.2, seed=3, n=3, response_format={
        "type": "json_schema", "json_schema": {"name": "ball", "strict": True, "schema": schema}})
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        ball = json.loads(choice.message.content)
        for name in ("day", "mail"):
            assert re.search(schema["properties"][name]["pattern"], ball[name], re.ASCII), ball
        assert 0 < ball["chance"] <= 1 and -2.5 <= ball["price"] <= 99.5 and round(ball["price"], 2) == ball["price"], ball


def test_any_json_object(client):
    for seed in range(3):
        answer = client.chat.completions.create(model="any", messages=ASK, response_format={"type": "json_object"}, max_tokens=60, temperature=1, seed=seed)
        text = answer.choices[0].message.content
        assert text.startswith("{")
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(text), dict)
    plain = client.completions.create(model="any", prompt="The guests:", max_tokens=400, temperature=0, extra_body={"response_format": FORMAT})
    check_guest(plain.choices[0].text)


@pytest.mark.parametrize("form", ["chatml", "qwen3.5"])
def test_calls_that_are_forced(program, form):
    """Both ways of writing calls."""
    with running(program, "--quiet", "--chat-template", form) as server:
        client = server.openai()
        for seed in range(3):
            answer = client.chat.completions.create(model="any", messages=ASK, tools=TOOLS, tool_choice="required", parallel_tool_calls=False,
                                                    max_tokens=400, temperature=1.1, seed=seed, reasoning_effort="none")
            choice = answer.choices[0]
            assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
            (call,) = choice.message.tool_calls
            assert call.function.name in ("write", "write_again", "burn")
            check_arguments(json.loads(call.function.arguments))
        named = client.chat.completions.create(model="any", messages=ASK, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "write_again"}},
                                               max_tokens=1000, temperature=0, reasoning_effort="none").choices[0].message
        assert named.tool_calls and all(call.function.name == "write_again" for call in named.tool_calls)
        # The call and its result go on as a chat, and nothing of it is read twice.
        more = client.chat.completions.create(model="any", tools=TOOLS, max_tokens=1, messages=[
            *ASK, {"role": "assistant", "tool_calls": [call.model_dump() for call in choice.message.tool_calls]},
            {"role": "tool", "tool_call_id": call.id, "content": "Done."}])
        assert more.usage.prompt_tokens_details.cached_tokens > answer.usage.prompt_tokens
        theirs = server.anthropic()
        for wanted in ({"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "burn", "disable_parallel_tool_use": True}):
            message = theirs.messages.create(model="any", messages=ASK, tools=ANTHROPIC_TOOLS, tool_choice=wanted, max_tokens=400,
                                             thinking={"type": "disabled"}, extra_body={"temperature": 0.9})
            (block,) = [block for block in message.content if block.type == "tool_use"]
            assert message.stop_reason == "tool_use" and block.name in (("burn",) if "name" in wanted else ("write", "write_again", "burn"))
            check_arguments(block.input)


def test_json_or_a_call(client):
    """With tools that may be called JSON is one of two things that the answer can be."""
    answer = client.chat.completions.create(model="any", messages=ASK, tools=TOOLS, response_format=FORMAT, max_tokens=400, temperature=1, seed=2,
                                            parallel_tool_calls=False).choices[0]
    if answer.message.tool_calls:
        check_arguments(json.loads(answer.message.tool_calls[0].function.arguments))
    else:
        check_guest(answer.message.content)


@pytest.mark.parametrize("body, field, says", [
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "(?=a)"}}}}, "response_format", "'pattern' at #"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strong"}}}}, "response_format", "'type' at #"),
    ({"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {
        "type": "object", "properties": {"a": {"type": "number", "multipleOf": 3}}}}}]}, "tools", "'multipleOf' at tools 'f'/properties/a"),
    ({"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {f"p{i}": {"enum": ["x" * 200, f"y{i}" * 90]} for i in range(60)}}}}]}, "tools", "more than the 8188 bytes"),
])
def test_what_cannot_be_held_is_refused(server, body, field, says):
    answer = server.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 1, **body})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == field and says in answer.json()["error"]["message"], answer.text


def test_what_need_not_be_held_is_passed_over(client):
    """Of a tool that is not strict the schema tells the model what to do, and the server holds what it can."""
    tools = [{"type": "function", "function": {"name": "weigh", "parameters": {
        "type": "object", "properties": {"pounds": {"type": "number", "minimum": 3, "multipleOf": 0.5}}, "required": ["pounds"]}}}]
    message = client.chat.completions.create(model="any", messages=ASK, tools=tools, tool_choice="required", parallel_tool_calls=False, max_tokens=200,
                                             temperature=0).choices[0].message
    assert isinstance(json.loads(message.tool_calls[0].function.arguments)["pounds"], (int, float))
