"""Selection rules that the lens compares, called with the evidence that a run recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, get_args

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllTokens,
    ClipCov,
    Contrast,
    Paced,
    Stapo,
    TisDpo,
    TokenSelection,
)
from reasontrain.algo.token_selection.rules import SelectionRule
from reasontrain.recipe import Recipe, RecipeError, YamlValue, as_mapping, build
from reasontrain.recipe.constraints import KIND_OR_PLUGIN
from reasontrain.recipe.yaml_text import load
from reasontrain.types import Batch, RunError, UserError


@dataclass(frozen=True, kw_only=True)
class _OneRule:
    """The key of a recipe that holds a rule."""

    token_selection: Annotated[TokenSelection, KIND_OR_PLUGIN]


def parse_rule(text: str) -> TokenSelection:
    """A rule as a recipe states it: `top_entropy`, or `{kind: tip, keep_ratio: 0.2}`.

    Raises UserError, with the reason, for any other text.
    """
    try:
        setting = load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--rule {text} is not YAML: {reason}") from None
    if isinstance(setting, str):
        setting = {"kind": setting}
    if not isinstance(setting, dict):
        raise UserError(
            f"--rule {text}: expected the kind of a rule, such as top_entropy, or its settings, "
            f"such as '{{kind: tip, keep_ratio: 0.2}}'"
        )
    try:
        return build(_OneRule, {"token_selection": setting}, f"--rule {text}").token_selection
    except RecipeError as error:
        raise UserError(str(error)) from None


def rules_beside(recipe: Recipe | None, recorded: frozenset[str]) -> list[TokenSelection]:
    """The rules that are compared if none is named: all whose evidence was recorded.

    The run's own rule comes first, computed again. Every other one has its default settings, and
    the run's `keep_ratio`, so that all keep as many tokens. Rules that read advantages, verdicts or
    pairs are left out where there are none.

    Args:
        recipe: the recipe of the run; None if it cannot be read.
        recorded: names of the evidence that was recorded.
    """
    own: TokenSelection = AllTokens() if recipe is None else recipe.token_selection
    left_out: list[type] = [type(own), AllTokens]
    if recipe is None or isinstance(recipe.advantage, NoAdvantage):
        left_out += [AdvantageEntropy, Stapo, ClipCov]
    if recipe is None or recipe.sample is None:
        left_out.append(Paced)
    if recipe is None or recipe.objective.granularity != "pair":
        left_out += [Contrast, TisDpo]
    rules: list[TokenSelection] = [] if isinstance(own, AllTokens) else [own]
    for kind in get_args(SelectionRule):
        rule = _with_keep_ratio(kind(), as_mapping(own).get("keep_ratio"))
        if kind not in left_out and rule.required_evidence <= recorded:
            rules.append(rule)
    return rules


def label(rule: TokenSelection) -> str:
    """The kind of a rule, and the settings in which it differs from the defaults."""
    return " ".join([rule.kind, *_changed(rule)])


def weights(rule: TokenSelection, batch: Batch) -> Float[Tensor, "B T"] | str:
    """The weights of a rule; the reason, as a sentence, if it cannot be computed."""
    missing = sorted(rule.required_evidence - batch.evidence.keys())
    if not len(batch.rollout_B):
        return "every recorded rollout was dropped"
    try:
        weight_BT = rule(batch)
    except (LookupError, RunError, AssertionError) as error:
        if missing:  # a plug-in turns the lookup of what is not there into an error of its own
            return f"the run did not record {', '.join(missing)}"
        reason = str(error).partition("\nTraceback ")[0]
        return " ".join(reason.split()) or type(error).__name__
    return torch.where(batch.is_response_BT, weight_BT.float(), 0.0)


def _with_keep_ratio(rule: SelectionRule, ratio: YamlValue) -> TokenSelection:
    """The rule with the keep ratio of another one, if both have any.

    A constant ratio becomes a schedule that does not change, and a schedule its last ratio.
    """
    settings = as_mapping(rule)
    if ratio is None or "keep_ratio" not in settings:
        return rule
    if isinstance(settings["keep_ratio"], dict) and not isinstance(ratio, dict):
        ratio = {"init": ratio, "final": ratio}
    elif isinstance(ratio, dict) and not isinstance(settings["keep_ratio"], dict):
        ratio = ratio.get("init") if ratio.get("final") is None else ratio["final"]
    with_ratio = {"token_selection": {**settings, "keep_ratio": ratio}}
    try:
        return build(_OneRule, with_ratio, "keep_ratio").token_selection
    except RecipeError:  # a plug-in's setting of this name may be no ratio
        return rule


def _changed(rule: TokenSelection) -> Iterator[str]:
    """Settings that differ from their defaults; nested rules by their names."""
    assert is_dataclass(rule), "plug-ins are dataclasses too"
    for field in fields(rule):
        value = vars(rule)[field.name]
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if field.name != "kind" and value != default:
            yield f"{field.name}={_short(value)}"


def _short(value: object) -> str:
    """A schedule as its ends, a rule as its name; any other setting as it is."""
    if isinstance(value, SelectionRule):
        return label(value)
    if isinstance(value, LinearSchedule):
        ends = (value.at(0.0), value.at(1.0))
        return "→".join(f"{end:g}" for end in dict.fromkeys(ends))
    return f"{value:g}" if isinstance(value, float) else str(value)
