"""Thoughts apart from what is said. The embedded model never ends a thought, so a format that opens one shows thoughts alone."""
import pytest

from conftest import running

ASK = [{"role": "user", "content": "Who is Mr. Darcy?"}]
OFF = {"chat_template_kwargs": {"enable_thinking": False}}
ON = {"chat_template_kwargs": {"enable_thinking": True}}


@pytest.fixture(scope="module")
def server(program):
    with running(program, "--quiet", "--chat-template", "qwen3.5") as one:
        yield one


def ask(client, extra, **kwargs):
    return client.chat.completions.create(model="any", extra_body=extra, **{"messages": ASK, "max_tokens": 12, "temperature": 0, **kwargs})


def test_thoughts_are_no_content(client):
    thinks = ask(client, ON).choices[0].message
    assert thinks.reasoning_content and not thinks.content
    says = ask(client, OFF).choices[0].message
    assert says.content and not hasattr(says, "reasoning_content")
    deltas = [chunk.choices[0].delta for chunk in ask(client, ON, stream=True)]
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == thinks.reasoning_content
    assert not any(d.content for d in deltas)


def test_effort_says_whether_to_think(client):
    for effort in ("low", "medium", "high"):
        thinks = ask(client, {}, reasoning_effort=effort).choices[0].message
        assert thinks.reasoning_content and not thinks.content
    for effort in ("none", "minimal"):
        says = ask(client, {}, reasoning_effort=effort).choices[0].message
        assert says.content and not hasattr(says, "reasoning_content")


def test_thinking_blocks(server):
    client = server.anthropic()
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    message = client.messages.create(model="any", max_tokens=12, messages=ASK, extra_body={"temperature": 0, **thinking})
    assert message.content[0].type == "thinking" and message.content[0].thinking
    with client.messages.stream(model="any", max_tokens=12, messages=ASK, extra_body={"temperature": 0, **thinking}) as stream:
        final = stream.get_final_message()
    assert final.content[0].thinking == message.content[0].thinking
    plain = client.messages.create(model="any", max_tokens=12, messages=ASK, extra_body={"temperature": 0, "thinking": {"type": "disabled"}})
    assert [block.type for block in plain.content] == ["text"]


def test_while_tools_are_used_thoughts_stay_and_are_reused(client):
    """Until the next question an answer is shown as it was generated, whether or not the client sends its thoughts back."""
    for extra in (ON, OFF):
        for seed in range(3):
            answer = ask(client, extra, temperature=1.3, seed=seed, max_tokens=16)
            said = answer.choices[0].message
            for send_back in ({"reasoning_content": said.reasoning_content} if extra is ON else {}, {}):
                messages = [*ASK, {"role": "assistant", "content": said.content, **send_back}, {"role": "tool", "tool_call_id": "x", "content": "A man."}]
                again = ask(client, extra, messages=messages, max_tokens=1)
                assert again.usage.prompt_tokens_details.cached_tokens >= answer.usage.total_tokens - 1, (extra, send_back)


def test_after_the_next_question_thoughts_are_dropped(client):
    """As the template has it; what was before the answer is reused all the same."""
    answer = ask(client, ON, messages=[{"role": "user", "content": "Who is Mr. Wickham, then? " * 20}], max_tokens=16)
    messages = [{"role": "user", "content": "Who is Mr. Wickham, then? " * 20}, {"role": "assistant", "content": "An officer."}, {"role": "user", "content": "And?"}]
    again = ask(client, ON, messages=messages, max_tokens=1)
    cached = again.usage.prompt_tokens_details.cached_tokens
    assert answer.usage.prompt_tokens - 16 <= cached < answer.usage.prompt_tokens
