"""Renamed recipe keys and values, for error messages that state the new name."""

from __future__ import annotations

from collections.abc import Mapping

KEYS: Mapping[tuple[str, str], str] = {
    ("", "select"): "token_selection",
    ("", "keep"): "rollout_filter",
    ("", "credit"): "advantage",
    ("", "average"): "loss_aggregation",
    ("", "last_number"): "answer_format",
    ("suites", "last_number"): "answer_format",
    ("task", "last_number"): "answer_format",
    ("token_selection", "keep"): "keep_ratio",
    ("rollout_filter", "share"): "keep_ratio",
    ("engine", "max_rows"): "max_num_seqs",
    ("engine", "tensor_parallel"): "tensor_parallel_size",
    ("engine", "gpu_memory_share"): "gpu_memory_utilization",
}
"""(section that holds the key, old key) -> new key; the section is "" at the top of a recipe."""

VALUES: Mapping[tuple[str, str], str] = {
    ("token_selection", "everything"): "all",
    ("rollout_filter", "everything"): "all",
    ("advantage", "group_norm"): "group_normalized",
    ("loss_aggregation", "per_rollout"): "seq_mean_token_mean",
    ("loss_aggregation", "per_kept_row"): "token_mean",
    ("loss_aggregation", "per_target_row"): "response_token_mean",
    ("loss_aggregation", "per_sampled_row"): "sampled_token_mean",
    ("loss_aggregation", "sum_per_rollout"): "seq_mean_token_sum",
    ("loss_aggregation", "per_pair"): "pair_mean",
    ("vocabulary", "whole"): "full_logits",
    ("task", "pictures"): "images",
}
"""(key or section, old value or `kind`) -> new one."""


def new_key(location: tuple[int | str, ...]) -> str | None:
    """The new name of the unknown key at the end of a location, or None."""
    *sections, key = map(str, location)
    return next((KEYS[at] for at in ((s, key) for s in (sections or [""])) if at in KEYS), None)


def new_value(location: tuple[int | str, ...], value: object) -> str | None:
    """The new name of a value that is no longer known at a location, or None."""
    parts = (str(part) for part in location)
    return next((VALUES[at] for at in ((part, str(value)) for part in parts) if at in VALUES), None)
