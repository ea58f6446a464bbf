"""Spellings of the marks around thoughts."""

from __future__ import annotations

PAIRS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<Thought>": "</Thought>",
    "<reasoning>": "</reasoning>",
    "<scratchpad>": "</scratchpad>",
    "<seed:think>": "</seed:think>",
    "<longcat_think>": "</longcat_think>",
    '<think effort="high">': "</think>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|think|>": "<|/think|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|channel>thought\n": "<channel|>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
    "analysis": "assistantfinal",
}
"""Opening -> closing, as models write them; the last one without its special tokens."""
GPT_OSS = ("<|channel|>analysis<|message|>", "analysis")
"""Openings that no single text closes."""
