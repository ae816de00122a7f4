"""Records as the formats' own documentation writes them, with the view that annotators get.

Sources: TRL "Dataset formats and types", LLaMA-Factory data/README, axolotl's dataset formats, OpenAI's chat, function
calling and preference fine-tuning, Hermes function calling, Anthropic's messages, verl's and OLMo's RL data.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Format(NamedTuple):
    """A record, and what becomes of it."""

    name: str
    record: dict[str, Any]
    schema: str
    kind: str
    view: list[tuple[str, str]]


LIGHT = {
    "type": "function",
    "function": {
        "name": "control_light",
        "description": "Controls the lights in a room.",
        "parameters": {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]},
    },
}
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "control_light", "arguments": '{"room": "living room"}'}}
]
ASKED = {"role": "user", "content": "What color is the sky?"}
BLUE = {"role": "assistant", "content": "It is blue."}
GREEN = {"role": "assistant", "content": "It is green."}
SKY = [("user", "What color is the sky?"), ("assistant", "It is blue.")]
HUMAN = {"from": "human", "value": "What color is the sky?"}

FORMATS = [
    Format("trl messages", {"messages": [ASKED, BLUE]}, "messages", "sft", SKY),
    Format(
        "trl prompt and completion, text",
        {"prompt": "The sky is", "completion": " blue."},
        "pair",
        "sft",
        [("user", "The sky is"), ("assistant", " blue.")],
    ),
    Format(
        "trl prompt and completion, messages",
        {"prompt": [ASKED], "completion": [BLUE]},
        "prompt_completion",
        "sft",
        SKY,
    ),
    Format("trl prompt only", {"prompt": [ASKED]}, "prompt_only", "prompt", SKY[:1]),
    Format(
        "trl preference, text",
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        "preference",
        "preference",
        [("user", "The sky is"), ("assistant", " blue.")],
    ),
    Format(
        "trl preference, text, implicit prompt",
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        "preference",
        "preference",
        [("user", "The sky is"), ("assistant", " blue.")],
    ),
    Format(
        "trl preference, messages",
        {"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN]},
        "preference",
        "preference",
        SKY,
    ),
    Format(
        "trl preference, messages, implicit prompt",
        {"chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        "preference",
        "preference",
        SKY,
    ),
    Format(
        "trl unpaired preference, text",
        {"prompt": "The sky is", "completion": " blue.", "label": True},
        "kto",
        "kto",
        [("user", "The sky is"), ("assistant", " blue.")],
    ),
    Format(
        "trl unpaired preference, messages",
        {"prompt": [ASKED], "completion": [GREEN], "label": False},
        "kto",
        "kto",
        [SKY[0], ("assistant", "It is green.")],
    ),
    Format(
        "trl stepwise supervision",
        {
            "prompt": "Which number is larger, 9.8 or 9.11?",
            "completions": ["The fractional part of 9.8 is 0.8.", "0.11 is greater than 0.8."],
            "labels": [True, False],
        },
        "stepwise",
        "stepwise",
        [
            ("user", "Which number is larger, 9.8 or 9.11?"),
            ("assistant", "The fractional part of 9.8 is 0.8.\n0.11 is greater than 0.8."),
        ],
    ),
    Format(
        "trl tool calling",
        {
            "messages": [
                {"role": "user", "content": "Turn on the living room lights."},
                {"role": "assistant", "tool_calls": CALLS},
                {"role": "tool", "name": "control_light", "tool_call_id": "call_1", "content": "They are on."},
                {"role": "assistant", "content": "Done!"},
            ],
            "tools": [LIGHT],
        },
        "messages",
        "sft",
        [
            ("user", "Turn on the living room lights."),
            ("function_call", json.dumps(CALLS)),
            ("tool", "They are on."),
            ("assistant", "Done!"),
        ],
    ),
    Format(
        "openai, content null and spoken words beside a call, tools as text",
        {
            "messages": [
                {"role": "developer", "content": "Use tools."},
                {"role": "user", "content": "Lights on."},
                {"role": "assistant", "content": None, "tool_calls": CALLS, "refusal": None},
                {"role": "tool", "tool_call_id": "call_1", "content": ""},
                {"role": "assistant", "content": "Again:", "tool_calls": CALLS, "weight": 0},
                {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "on"}]},
                {"role": "assistant", "content": "They are on.", "weight": 1},
            ],
            "tools": json.dumps([LIGHT]),
            "parallel_tool_calls": False,
        },
        "messages",
        "sft",
        [
            ("system", "Use tools."),
            ("user", "Lights on."),
            ("function_call", json.dumps(CALLS)),
            ("assistant", "Again:"),
            ("function_call", json.dumps(CALLS)),
            ("tool", "on"),
            ("assistant", "They are on."),
        ],
    ),
    Format(
        "trl harmony",
        {
            "messages": [
                {"role": "developer", "content": "Use a friendly tone."},
                {"role": "user", "content": "What is the meaning of life?"},
                {"role": "assistant", "thinking": "Deep reflection...", "content": "The final answer is..."},
            ],
            "reasoning_effort": "low",
            "model_identity": "You are HuggingGPT.",
        },
        "messages",
        "sft",
        [
            ("system", "Use a friendly tone."),
            ("user", "What is the meaning of life?"),
            ("assistant", "The final answer is..."),
        ],
    ),
    Format(
        "reasoning_content",
        {
            "messages": [ASKED, {**BLUE, "reasoning_content": "Rayleigh."}],
            "chat_template_kwargs": {"enable_thinking": True},
        },
        "messages",
        "sft",
        SKY,
    ),
    Format(
        "reasoning in the text",
        {"messages": [ASKED, {"role": "assistant", "content": "<think>\nRayleigh.\n</think>\n\nIt is blue."}]},
        "messages",
        "sft",
        [SKY[0], ("assistant", "<think>\nRayleigh.\n</think>\n\nIt is blue.")],
    ),
    Format(
        "hermes function calling",
        {
            "conversations": [
                {"from": "system", "value": f"You are a function calling AI. <tools> {json.dumps(LIGHT)} </tools>"},
                {"from": "human", "value": "Lights on."},
                {"from": "gpt", "value": '<tool_call>\n{"name": "control_light", "arguments": {}}\n</tool_call>'},
                {"from": "tool", "value": "<tool_response>\non\n</tool_response>"},
                {"from": "gpt", "value": "They are on."},
            ],
            "tools": json.dumps([LIGHT]),
            "category": "IoT",
        },
        "sharegpt",
        "sft",
        [
            ("system", f"You are a function calling AI. <tools> {json.dumps(LIGHT)} </tools>"),
            ("user", "Lights on."),
            ("assistant", '<tool_call>\n{"name": "control_light", "arguments": {}}\n</tool_call>'),
            ("tool", "<tool_response>\non\n</tool_response>"),
            ("assistant", "They are on."),
        ],
    ),
    Format(
        "sharegpt with function_call and observation",
        {
            "conversations": [
                {"from": "human", "value": "Lights on."},
                {"from": "function_call", "value": '{"name": "control_light", "arguments": {}}'},
                {"from": "observation", "value": "on"},
                {"from": "gpt", "value": "They are on."},
            ],
            "system": "Use tools.",
            "tools": json.dumps([LIGHT]),
        },
        "sharegpt",
        "sft",
        [
            ("system", "Use tools."),
            ("user", "Lights on."),
            ("function_call", '{"name": "control_light", "arguments": {}}'),
            ("tool", "on"),
            ("assistant", "They are on."),
        ],
    ),
    Format(
        "llama-factory alpaca",
        {
            "instruction": "Add.",
            "input": "1 2",
            "output": "3",
            "system": "Be brief.",
            "history": [["hi", "yes?"]],
        },
        "alpaca",
        "sft",
        [("system", "Be brief."), ("user", "hi"), ("assistant", "yes?"), ("user", "Add.\n1 2"), ("assistant", "3")],
    ),
    Format(
        "llama-factory alpaca preference",
        {"instruction": "Name the colour.", "input": "sky", "chosen": "blue", "rejected": "green"},
        "alpaca_preference",
        "preference",
        [("user", "Name the colour.\nsky"), ("assistant", "blue")],
    ),
    Format(
        "llama-factory alpaca kto",
        {"instruction": "Name it.", "input": "", "output": "blue", "kto_tag": False},
        "alpaca",
        "kto",
        [("user", "Name it."), ("assistant", "blue")],
    ),
    Format(
        "llama-factory alpaca with images and videos",
        {"instruction": "<image>What is it?", "output": "A cat.", "images": ["a.jpg"], "videos": [], "audios": None},
        "alpaca",
        "sft",
        [("user", "<image>What is it?"), ("assistant", "A cat.")],
    ),
    Format(
        "llama-factory sharegpt preference",
        {
            "conversations": [HUMAN],
            "chosen": {"from": "gpt", "value": "It is blue."},
            "rejected": {"from": "gpt", "value": "It is green."},
        },
        "sharegpt_preference",
        "preference",
        SKY,
    ),
    Format(
        "llama-factory sharegpt kto",
        {"messages": [ASKED, BLUE], "kto_tag": True},
        "messages",
        "kto",
        SKY,
    ),
    Format(
        "axolotl chat_template preference",
        {"messages": [ASKED], "chosen": BLUE, "rejected": GREEN},
        "messages_preference",
        "preference",
        SKY,
    ),
    Format(
        "axolotl weights",
        {"messages": [ASKED, {**BLUE, "train": True, "train_detail": [{"begin_offset": 0}]}]},
        "messages",
        "sft",
        SKY,
    ),
    Format(
        "intel orca preference",
        {"system": "Be brief.", "question": "Sky?", "chosen": "Blue.", "rejected": "Green."},
        "preference",
        "preference",
        [("system", "Be brief."), ("user", "Sky?"), ("assistant", "Blue.")],
    ),
    Format(
        "ultrafeedback binarized",
        {
            "prompt": "What color is the sky?",
            "prompt_id": "f0e3",
            "messages": [ASKED, BLUE],
            "chosen": [ASKED, BLUE],
            "rejected": [ASKED, GREEN],
            "score_chosen": 8.0,
            "score_rejected": 2.5,
        },
        "messages_preference",
        "preference",
        SKY,
    ),
    Format(
        "openai preference",
        {
            "input": {"messages": [ASKED], "tools": [LIGHT], "parallel_tool_calls": True},
            "preferred_output": [BLUE],
            "non_preferred_output": [GREEN],
        },
        "openai_preference",
        "preference",
        SKY,
    ),
    Format(
        "content in parts, with an image and a sound",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
                        {"type": "text", "text": "What is "},
                        {"type": "text", "text": "it?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
                {
                    "role": "user",
                    "content": [{"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}],
                },
                {"role": "assistant", "content": "It purrs."},
            ],
        },
        "messages",
        "sft",
        [("user", "What is it?"), ("assistant", "A cat."), ("user", "<audio>"), ("assistant", "It purrs.")],
    ),
    Format(
        "trl vision",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
            ],
            "images": [{"bytes": "iVBORw0KGgo=", "path": None}],
        },
        "messages",
        "sft",
        [("user", "What is it?"), ("assistant", "A cat.")],
    ),
    Format(
        "anthropic tool use",
        {
            "messages": [
                {"role": "user", "content": "Lights on."},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "I have a tool.", "signature": "x"},
                        {"type": "text", "text": "Wait."},
                        {
                            "type": "tool_use",
                            "id": "toolu_1",
                            "name": "control_light",
                            "input": {"room": "living room"},
                        },
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "on"}]},
                {"role": "assistant", "content": "They are on."},
            ],
        },
        "messages",
        "sft",
        [("user", "Lights on."), ("assistant", "Wait."), ("user", "<tool_result>"), ("assistant", "They are on.")],
    ),
    Format(
        "olmo tool use",
        {
            "messages": [
                {
                    "role": "system",
                    "content": "You are helpful.",
                    "functions": json.dumps([LIGHT]),
                    "function_calls": None,
                },
                {"role": "user", "content": "Lights on."},
                {"role": "assistant", "content": None, "function_calls": 'control_light(room="all")'},
                {"role": "environment", "content": "on"},
                {"role": "assistant", "content": "They are on."},
            ],
        },
        "messages",
        "sft",
        [
            ("system", "You are helpful."),
            ("user", "Lights on."),
            ("function_call", 'control_light(room="all")'),
            ("tool", "on"),
            ("assistant", "They are on."),
        ],
    ),
    Format(
        "llama 3 tool use",
        {
            "messages": [
                {"role": "user", "content": "Compute 1+1."},
                {"role": "assistant", "content": "<|python_tag|>1+1"},
                {"role": "ipython", "content": {"output": 2}},
                {"role": "assistant", "content": "2"},
            ],
        },
        "messages",
        "sft",
        [("user", "Compute 1+1."), ("assistant", "<|python_tag|>1+1"), ("tool", '{"output": 2}'), ("assistant", "2")],
    ),
    Format(
        "rlvr with messages",
        {"messages": [ASKED], "ground_truth": "blue", "dataset": "sky", "constraint_type": None},
        "messages",
        "prompt",
        SKY[:1],
    ),
    Format(
        "verl",
        {
            "data_source": "gsm8k",
            "prompt": [ASKED],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "72"},
            "extra_info": {"split": "train", "index": 0},
        },
        "prompt_only",
        "prompt",
        SKY[:1],
    ),
    Format(
        "input as a list",
        {"instruction": "Sum.", "input": [1, 2.50, {"x": None}], "output": "3.5"},
        "alpaca",
        "sft",
        [("user", 'Sum.\n[1, 2.5, {"x": null}]'), ("assistant", "3.5")],
    ),
    Format(
        "input as an object",
        {"input": {"a": 1, "b": [2]}, "output": "3"},
        "pair",
        "sft",
        [("user", '{"a": 1, "b": [2]}'), ("assistant", "3")],
    ),
    Format(
        "llama-nemotron",
        {
            "input": [ASKED],
            "output": "It is blue.",
            "reasoning": "off",
            "system_prompt": "detailed thinking off",
            "category": "chat",
            "license": "cc-by-4.0",
            "generator": "m",
            "used_in_training": "yes",
            "version": "v1",
        },
        "prompt_completion",
        "sft",
        [("system", "detailed thinking off"), *SKY],
    ),
    Format(
        "openorca",
        {"id": "niv.1", "system_prompt": "Be brief.", "question": SKY[0][1], "response": SKY[1][1]},
        "pair",
        "sft",
        [("system", "Be brief."), *SKY],
    ),
    Format(
        "question with context",
        {"question": "Who wrote it?", "context": "Ada wrote it.", "answer": "Ada."},
        "pair",
        "sft",
        [("user", "Who wrote it?\nAda wrote it."), ("assistant", "Ada.")],
    ),
    Format(
        "prompt with input",
        {"prompt": "Sum.", "input": [1, 2], "completion": "3"},
        "pair",
        "sft",
        [("user", "Sum.\n[1, 2]"), ("assistant", "3")],
    ),
    Format(
        "alpaca with reasoning",
        {"instruction": "What is 2+2?", "reasoning": "Two and two.", "output": "4"},
        "alpaca",
        "sft",
        [("user", "What is 2+2?"), ("assistant", "4")],
    ),
    Format(
        "numinamath",
        {"problem": "What is 2+2?", "solution": "We add: 4.", "answer": "4"},
        "pair",
        "sft",
        [("user", "What is 2+2?"), ("assistant", "We add: 4.")],
    ),
    Format(
        "hh-rlhf",
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Sky?\n\nAssistant: I think blue.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Sky?\n\nAssistant: It is green.",
        },
        "preference",
        "preference",
        [("user", "Hi"), ("assistant", "Yes?"), ("user", "Sky?"), ("assistant", "I think blue.")],
    ),
    Format(
        "preference, text of several lines",
        {"chosen": "Q: Sky?\nA: blue", "rejected": "Q: Sky?\nA: bright"},
        "preference",
        "preference",
        [("user", "Q: Sky?\n"), ("assistant", "A: blue")],
    ),
    Format(
        "kto_tag as a number",
        {"prompt": "Sky at night?", "completion": "Blue.", "kto_tag": 0},
        "kto",
        "kto",
        [("user", "Sky at night?"), ("assistant", "Blue.")],
    ),
    Format(
        "empty messages beside conversations",
        {"messages": [], "conversations": [HUMAN, {"from": "gpt", "value": "Blue, mostly."}]},
        "sharegpt",
        "sft",
        [*SKY[:1], ("assistant", "Blue, mostly.")],
    ),
    Format(
        "empty output beside a response",
        {"instruction": SKY[0][1], "output": "", "response": "Blue, often."},
        "alpaca",
        "sft",
        [*SKY[:1], ("assistant", "Blue, often.")],
    ),
]
