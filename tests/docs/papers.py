"""The paper index: every paper that code, recipes or documents cite, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARXIV = re.compile(r"(?<![\d.])(2[0-9]{3}\.[0-9]{5}|1[0-9]{3}\.[0-9]{5})(?![\d.]*\d)")

PAPERS = {
    "2309.14509": (
        "DeepSpeed Ulysses: System Optimizations for Enabling Training of Extreme Long Sequence "
        "Transformer Models",
        "`learn.sequence_parallel`",
    ),
    "2604.14084": ("TIP: Token Importance in On-Policy Distillation", "TIP"),
    "2605.26844": (
        "Not All Disagreement Is Learnable: Token Teachability in On-Policy Distillation",
        "TIP's modes `teachability` and `compatibility`",
    ),
    "2509.22115": (
        "Learning More with Less: A Dynamic Dual-Level Down-Sampling Framework for Efficient "
        "Policy Optimization",
        "D3S",
    ),
    "2411.19943": (
        "Critical Tokens Matter: Token-Level Contrastive Estimation Enhances LLM's Reasoning "
        "Capability",
        "cDPO",
    ),
    "2509.19170": ("Soft Tokens, Hard Truths", "Soft Tokens"),
    "2510.18250": (
        "ssToken: Self-modulated and Semantic-aware Token Selection for LLM Fine-tuning",
        "ssToken",
    ),
    "2505.08971": (
        "Prioritizing Image-Related Tokens Enhances Vision-Language Pre-Training",
        "PRIOR",
    ),
    "2402.03300": ("DeepSeekMath", "GRPO"),
    "2503.20783": ("Understanding R1-Zero-Like Training: A Critical Perspective", "Dr. GRPO"),
    "2503.14476": ("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "DAPO"),
    "2602.15620": (
        "STAPO: Stabilizing Reinforcement Learning for LLMs by Silencing Rare Spurious Tokens",
        "STAPO",
    ),
    "2508.09726": (
        "Sample More to Think Less: Group Filtered Policy Optimization for Concise Reasoning",
        "GFPO",
    ),
    "2508.04349": (
        "GTPO and GRPO-S: Token and Sequence-Level Reward Shaping with Policy Entropy",
        "GTPO",
    ),
    "2506.14758": ("Reasoning with Exploration: An Entropy Perspective", "the entropy advantage"),
    "2505.22617": (
        "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
        "Clip-Cov and KL-Cov",
    ),
    "2506.13585": (
        "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention",
        "CISPO",
    ),
    "2506.02208": (
        "KDRL: Post-Training Reasoning LLMs via Unified Knowledge Distillation and Reinforcement "
        "Learning",
        "`kl_estimator: exact`",
    ),
    "2507.18071": ("Group Sequence Policy Optimization", "GSPO"),
    "2402.14740": ("Back to Basics: Revisiting REINFORCE-Style Optimization", "RLOO"),
    "1912.09729": (
        "Mastering Complex Control in MOBA Games with Deep Reinforcement Learning",
        "the dual clip",
    ),
    "2305.18290": ("Direct Preference Optimization", "DPO"),
    "2306.13649": (
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
        "on-policy distillation",
    ),
    "2404.07965": ("Rho-1: Not All Tokens Are What You Need", "Rho-1"),
    "2506.01939": (
        "Beyond the 80/20 Rule: High-Entropy Minority Tokens Drive Effective Reinforcement "
        "Learning for LLM Reasoning",
        "the 80/20 rule",
    ),
    "2504.13818": ("Not All Rollouts are Useful: Down-Sampling Rollouts in LLM RL", "PODS"),
    "2405.17871": (
        "Seeing the Image: Prioritizing Visual Correlation by Contrastive Alignment",
        "CAL, PRIOR's mode `contrast`",
    ),
    "2508.05629": (
        "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward "
        "Rectification",
        "DFT",
    ),
    "2601.02151": (
        "Entropy-Adaptive Fine-Tuning: Resolving Confident Conflicts to Mitigate Forgetting",
        "EAFT",
    ),
    "2606.22600": ("On the Position Bias of On-Policy Distillation", "IW-OPD"),
    "2510.24021": (
        "SpecKD: Speculative Decoding for Effective Knowledge Distillation of LLMs",
        "SelecTKD, its later name",
    ),
    "2605.27028": (
        "Less is More: Early Stopping Rollout for On-Policy Distillation",
        "first segment",
    ),
    "2603.11178": (
        "PACED: Distillation and On-Policy Self-Distillation at the Frontier of Student Competence",
        "PACED",
    ),
    "2606.02684": (
        "Filter, Then Reweight: Rethinking Optimization Granularity in On-Policy Distillation",
        "FiRe-OPD",
    ),
    "2603.07079": (
        "Entropy-Aware On-Policy Distillation of Language Models",
        "entropy-aware distillation",
    ),
    "2410.04350": (
        "TIS-DPO: Token-level Importance Sampling for Direct Preference Optimization With "
        "Estimated Weights",
        "TIS-DPO",
    ),
    "2210.15097": ("Contrastive Decoding", "the setting `plausible` of a contrast stage"),
    "2110.14168": ("Training Verifiers to Solve Math Word Problems", "GSM8K"),
    "2103.03874": ("Measuring Mathematical Problem Solving With the MATH Dataset", "MATH"),
    "2305.20050": ("Let's Verify Step by Step", "MATH-500"),
    "2206.14858": ("Solving Quantitative Reasoning Problems with Language Models", "Minerva"),
    "2402.14008": ("OlympiadBench", "OlympiadBench"),
    "2107.03374": ("Evaluating Large Language Models Trained on Code", "pass@k"),
    "2203.11171": ("Self-Consistency Improves Chain of Thought Reasoning", "maj@k"),
    "1910.02054": ("ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", "ZeRO"),
    "2001.08361": ("Scaling Laws for Neural Language Models", "operations per token in a plan"),
    "2205.05198": ("Reducing Activation Recomputation in Large Transformer Models", "plan"),
    "2211.05102": ("Efficiently Scaling Transformer Inference", "decoding time in a plan"),
}
"""arXiv id -> title, and what of it is here."""

PLACES = ("reasontrain", "recipes", "examples", "eval")
SUFFIXES = (".py", ".yaml")


def citations(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """(arXiv id, file) of every citation in code and recipes, in the order of files."""
    for place in PLACES:
        for path in sorted((root / place).rglob("*")):
            if path.suffix in SUFFIXES:
                name = path.relative_to(root).as_posix()
                for number in ARXIV.findall(path.read_text(encoding="utf-8")):
                    yield number, name


def papers_table() -> str:
    """The index, newest first; raises AssertionError for a cited paper without a title."""
    places: dict[str, dict[str, None]] = {}
    for number, name in citations():
        places.setdefault(number, {})[name] = None
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if page.name != "papers.md":
            for number in ARXIV.findall(page.read_text(encoding="utf-8")):
                places.setdefault(number, {})
    unknown = sorted(places.keys() - PAPERS.keys())
    assert not unknown, f"PAPERS needs a title for {unknown}"
    uncited = sorted(PAPERS.keys() - places.keys())
    assert not uncited, f"nothing cites {uncited}"
    rows = ["| paper | arXiv | here | cited in |", "| --- | --- | --- | --- |"]
    for number in sorted(PAPERS, reverse=True):
        title, what = PAPERS[number]
        files = ", ".join(f"`{_short(name)}`" for name in places[number]) or "documents"
        rows.append(f"| {title} | [{number}](https://arxiv.org/abs/{number}) | {what} | {files} |")
    return "\n".join(rows)


def _short(name: str) -> str:
    return name.removeprefix("reasontrain/")
