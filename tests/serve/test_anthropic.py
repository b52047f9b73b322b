"""Anthropic's own client, on every feature."""
import anthropic
import pytest

ASK = [{"role": "user", "content": "Who is Mr. Darcy?"}]


@pytest.fixture
def client(server):
    return server.anthropic()


def test_message(client):
    message = client.messages.create(model="any", max_tokens=12, messages=ASK, extra_body={"temperature": 0})
    assert message.id.startswith("msg_") and message.role == "assistant"
    assert message.content[0].type == "text" and message.content[0].text
    assert message.stop_reason == "max_tokens" and message.stop_sequence is None
    assert message.usage.output_tokens == 12


def test_the_same_as_openai(client, server):
    message = client.messages.create(model="any", max_tokens=16, messages=ASK, extra_body={"temperature": 0}, system="Be brief.")
    other = server.openai().chat.completions.create(
        model="any", max_tokens=16, temperature=0, messages=[{"role": "system", "content": "Be brief."}, *ASK])
    assert message.content[0].text == other.choices[0].message.content


def test_stream(client):
    whole = client.messages.create(model="any", max_tokens=16, messages=ASK, extra_body={"temperature": 0})
    with client.messages.stream(model="any", max_tokens=16, messages=ASK, extra_body={"temperature": 0}) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == "max_tokens" and final.usage.output_tokens == 16
    kinds = [event.type for event in client.messages.create(model="any", max_tokens=4, messages=ASK, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_stop_sequences(client):
    text = client.messages.create(model="any", max_tokens=40, messages=ASK, extra_body={"temperature": 0}).content[0].text
    word = text.split()[5]
    message = client.messages.create(model="any", max_tokens=40, messages=ASK, extra_body={"temperature": 0}, stop_sequences=["no such", word])
    assert message.stop_reason == "stop_sequence" and message.stop_sequence == word
    assert message.content[0].text == text[:text.index(word)]


def test_cached_tokens_are_told(client):
    system = "You are a most patient companion who has read every novel there is. " * 12
    first = client.messages.create(model="any", max_tokens=8, system=system, messages=ASK, extra_body={"temperature": 0})
    again = client.messages.create(model="any", max_tokens=8, messages=[{"role": "user", "content": "And Mr. Bingley?"}], extra_body={"temperature": 0},
                                   system=[{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}])
    whole = first.usage.input_tokens + first.usage.cache_read_input_tokens
    assert again.usage.cache_read_input_tokens > whole / 2
    with client.messages.stream(model="any", max_tokens=8, system=system, messages=ASK, extra_body={"temperature": 0}) as stream:
        usage = stream.get_final_message().usage
    assert usage.cache_read_input_tokens > whole / 2 and usage.output_tokens == 8


def test_count_tokens(client):
    counted = client.messages.count_tokens(model="any", messages=ASK, system="Be brief.").input_tokens
    message = client.messages.create(model="any", max_tokens=1, messages=ASK, system="Be brief.")
    assert counted == message.usage.input_tokens + message.usage.cache_read_input_tokens


def test_a_conversation(client):
    messages = [{"role": "user", "content": [{"type": "text", "text": "Who is Mr. Darcy?"}]}]
    answer = client.messages.create(model="any", max_tokens=8, messages=messages, extra_body={"temperature": 0})
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "And then?"}]
    again = client.messages.create(model="any", max_tokens=8, messages=messages, extra_body={"temperature": 0})
    assert again.usage.cache_read_input_tokens > 0


@pytest.mark.parametrize("change", [{"max_tokens": -1}, {"messages": []}, {"temperature": "x"}, {"stop_sequences": 5}, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}])
def test_errors_in_anthropics_form(server, change):
    answer = server.post("/v1/messages", {"model": "any", "max_tokens": 5, "messages": ASK, **change})
    assert answer.status_code == 400
    assert answer.json()["type"] == "error" and answer.json()["error"]["type"] == "invalid_request_error"


def test_errors_reach_the_client(client):
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="any", max_tokens=5, messages=[{"role": "king", "content": "x"}])
