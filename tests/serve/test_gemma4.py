"""Gemma 4's chats, where calls, their results and what is said to these are one turn of the model's, and texts stand between marks of their own."""
import json

import anthropic
import openai
import pytest

from conftest import running
from markers import with_markers

MARKERS = ["<|think|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>']
# Bits by which it is known.
TEMPLATE = """'<|turn>' '<turn|>' declaration: '<|tool_call>call:' {%- elif ns.prev_message_type == 'tool_response' and enable_thinking -%}"""
TOOLS = [{"type": "function", "function": {
    "name": name, "description": f"To {name} a letter.",
    "parameters": {"type": "object", "properties": {"to": {"type": "string", "enum": ["Jane", "Mr. \"B\" {Collins}"]},
                                                    "pages": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 40}, "minItems": 1, "maxItems": 3}},
                   "required": ["to", "pages"]}}} for name in ("write", "burn")]
ANTHROPIC_TOOLS = [{"name": t["function"]["name"], "description": t["function"]["description"], "input_schema": t["function"]["parameters"]} for t in TOOLS]
ASK = [{"role": "user", "content": "Write to Jane, if you please."}]
THINK, DO_NOT = {"chat_template_kwargs": {"enable_thinking": True}}, {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return with_markers(tmp_path_factory.mktemp("gemma4") / "model.gguf", MARKERS, ("<|turn>", "<turn|>"), TEMPLATE)


@pytest.fixture(scope="module")
def server(program, model, tmp_path_factory):
    with running(program, "--quiet", "--store", str(tmp_path_factory.mktemp("store")), model=model) as one:
        yield one


def ask(client, **kwargs):
    return client.chat.completions.create(**{"model": "any", "messages": ASK, "tools": TOOLS, "max_tokens": 400, "temperature": 1.1,
                                             "extra_body": DO_NOT, **kwargs})


def check(name, arguments):
    assert name in ("write", "burn") and set(arguments) == {"to", "pages"}
    assert arguments["to"] in ("Jane", "Mr. \"B\" {Collins}") and 1 <= len(arguments["pages"]) <= 3 and all(1 <= page <= 40 for page in arguments["pages"])


def test_calls_that_are_forced(client):
    for seed in range(4):
        choice = ask(client, tool_choice="required", parallel_tool_calls=False, seed=seed).choices[0]
        assert choice.finish_reason == "tool_calls" and not choice.message.content, choice
        (call,) = choice.message.tool_calls
        check(call.function.name, json.loads(call.function.arguments))
    named = ask(client, tool_choice={"type": "function", "function": {"name": "burn"}}).choices[0].message
    assert {call.function.name for call in named.tool_calls} == {"burn"}


def test_calls_in_streams(server, client):
    settings = {"tool_choice": "required", "temperature": 0, "parallel_tool_calls": False}
    whole = ask(client, **settings).choices[0].message.tool_calls[0].function
    chunks = [chunk.choices[0] for chunk in ask(client, stream=True, **settings)]
    assert not any(chunk.delta.content for chunk in chunks) and chunks[-1].finish_reason == "tool_calls"
    parts = [part for chunk in chunks for part in chunk.delta.tool_calls or []]
    assert parts[0].function.name == whole.name and parts[0].id
    assert "".join(part.function.arguments for part in parts) == whole.arguments
    with server.anthropic().messages.stream(model="any", max_tokens=400, messages=ASK, tools=ANTHROPIC_TOOLS,
                                            tool_choice={"type": "any", "disable_parallel_tool_use": True}, thinking={"type": "disabled"},
                                            extra_body={"temperature": 0}) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    assert "content_block_start" in kinds and message.stop_reason == "tool_use"
    (block,) = message.content
    assert block.type == "tool_use" and block.name == whole.name and block.input == json.loads(whole.arguments)


@pytest.mark.parametrize("extra", [DO_NOT, THINK])
def test_a_result_computes_itself_and_nothing_else(server, client, extra):
    """Round after round of one turn: the next prompt goes on from the very tokens that were generated, thoughts and all."""
    end = server.post("/tokenize", {"content": "<channel|>", "parse_special": True}).json()["tokens"]
    assert len(end) == 1
    thoughts = 0
    for seed in range(3):
        messages = [*ASK, {"role": "user", "content": f"The {seed}th time, {extra}."}]
        for _ in range(3):
            # Thoughts come to an end soon, of which the model knows nothing.
            answer = ask(client, messages=messages, tool_choice="required", seed=seed, logit_bias={end[0]: 9}, extra_body=extra)
            message = answer.choices[0].message
            thoughts += bool(getattr(message, "reasoning_content", None))
            messages.append({"role": "assistant", "tool_calls": [call.model_dump() for call in message.tool_calls]})
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "Done."} for call in message.tool_calls]
            more = ask(client, messages=messages, max_tokens=1, extra_body=extra)
            # Of the last prompt and its answer all but the marker that ended it.
            assert more.usage.prompt_tokens_details.cached_tokens >= answer.usage.total_tokens - 1
    assert (thoughts > 0) == (extra is THINK)


def test_both_kinds_of_clients_tell_the_same(server, client):
    call = {"id": "call_1", "type": "function", "function": {"name": "write", "arguments": '{"to":"Jane","pages":[2]}'}}
    ours = ask(client, max_tokens=1, messages=[*ASK, {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
                                               {"role": "tool", "tool_call_id": "call_1", "content": "Written."}]).usage.prompt_tokens
    theirs = server.anthropic().messages.count_tokens(model="any", tools=ANTHROPIC_TOOLS, messages=[
        *ASK, {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""},
                                                {"type": "tool_use", "id": "toolu_1", "name": "write", "input": {"to": "Jane", "pages": [2]}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Written."}]}]}]).input_tokens
    assert theirs == ours
    assert ask(client, max_tokens=1).usage.prompt_tokens > ask(client, max_tokens=1, tools=openai.omit).usage.prompt_tokens + 100, "the model is told of them"


def test_messages_of_a_chat_with_calls(server):
    call = {"id": "x", "type": "function", "function": {"name": "write", "arguments": '{"to":"Jane","pages":[2]}'}}
    messages = [*ASK, {"role": "assistant", "content": "At once.", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "x", "content": "Done."}]
    answer = server.post("/v1/chat/completions", {"messages": messages, "tools": TOOLS, "max_tokens": 0, "session": "told"})
    assert answer.status_code == 200, answer.text
    shown = [(message["role"], message["content"]) for message in server.get("/v1/capsules/told").json()["messages"]]
    assert shown[0][1].startswith('<|tool>declaration:write{description:<|"|>To write a letter.<|"|>,parameters:{properties:{pages:{items:{maximum:40,minimum:1,')
    assert shown[1:4] == [("user", ASK[0]["content"]), ("assistant", 'At once.<|tool_call>call:write{pages:[2],to:<|"|>Jane<|"|>}<tool_call|>'),
                          ("tool", 'response:write{value:<|"|>Done.<|"|>}')]


def test_a_session_goes_on_within_the_turn(server, client):
    answer = ask(client, tool_choice={"type": "function", "function": {"name": "burn"}}, parallel_tool_calls=False, extra_body={"session": "burning", **DO_NOT})
    (call,) = answer.choices[0].message.tool_calls
    more = ask(client, max_tokens=3, messages=[{"role": "tool", "tool_call_id": call.id, "content": "Ash."}], tool_choice="none", extra_body={"session": "burning", **DO_NOT})
    assert more.usage.prompt_tokens > answer.usage.total_tokens
    ask(client, max_tokens=0, messages=[{"role": "user", "content": "And now?"}], extra_body={"session": "burning", **DO_NOT})
    messages = server.get("/v1/capsules/burning").json()["messages"]
    assert [message["role"] for message in messages[-5:]] == ["assistant", "tool", "assistant", "user", "assistant"], messages
    assert messages[-4]["content"] == 'response:burn{value:<|"|>Ash.<|"|>}'
    assert messages[-3]["content"] == more.choices[0].message.content or not more.choices[0].message.content


def test_results_open_thoughts_where_answers_think(client):
    call = {"id": "x", "type": "function", "function": {"name": "write", "arguments": '{"to":"Jane","pages":[2]}'}}
    messages = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "x", "content": "Done."}]
    message = ask(client, messages=messages, max_tokens=4, extra_body=THINK).choices[0].message
    assert message.reasoning_content and not message.content
    message = ask(client, messages=messages, max_tokens=4).choices[0].message
    assert message.content and not getattr(message, "reasoning_content", None)


def test_a_result_of_no_call_is_refused(server, client):
    for name, why in ((None, "nothing before it says of which"), ("write", "the one before it calls none")):
        result = {"role": "tool", "tool_call_id": "x", "content": "Done.", **({"name": name} if name else {})}
        with pytest.raises(openai.BadRequestError, match="message 1 is the result of a tool, and " + why):
            ask(client, messages=[*ASK, result])
    with pytest.raises(anthropic.BadRequestError, match="nothing before it says of which"):
        server.anthropic().messages.create(model="any", max_tokens=1, tools=ANTHROPIC_TOOLS, messages=[
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "Done."}]}])


def test_lengths_of_texts_cannot_be_held(server):
    bounded = {"type": "object", "properties": {"to": {"type": "string", "maxLength": 3}}, "required": ["to"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "f", "parameters": bounded, "strict": True}}
    answer = server.post("/v1/chat/completions", {"messages": ASK, "tools": [tool], "tool_choice": "required", "max_tokens": 1})
    assert answer.status_code == 400 and "'maxLength' at tools 'f'/properties/to cannot be enforced" in answer.json()["error"]["message"], answer.text
