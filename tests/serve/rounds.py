"""Rounds of calls and results, for chats of whatever format."""


def check_rounds(ask, client, messages, **kwargs):
    """Whatever the spelling of a call: the prompt with its result goes on from the very tokens that were generated."""
    messages = list(messages)
    for _ in range(2):
        answer = ask(client, messages=messages, tool_choice="required", parallel_tool_calls=False, **kwargs)
        calls = answer.choices[0].message.tool_calls
        messages.append({"role": "assistant", "tool_calls": [call.model_dump() for call in calls]})
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "Done."} for call in calls]
        more = ask(client, messages=messages, max_tokens=1)
        # Of the last prompt and its answer all but the marker that ended it.
        assert more.usage.prompt_tokens_details.cached_tokens >= answer.usage.total_tokens - 1
