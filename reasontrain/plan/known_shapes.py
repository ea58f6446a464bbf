"""Sizes of models that recipes often name, for plans on machines that do not have them.

The numbers are those of the models' config.json on the hub. A test counts their parameters.
"""

from __future__ import annotations

from collections.abc import Iterator

from reasontrain.models import Shape

QWEN25 = {
    "0.5B": (896, 4864, 24, 14, 2, 64, 151936, True),
    "1.5B": (1536, 8960, 28, 12, 2, 128, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 128, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 128, 152064, False),
    "14B": (5120, 13824, 48, 40, 8, 128, 152064, False),
    "32B": (5120, 27648, 64, 40, 8, 128, 152064, False),
    "72B": (8192, 29568, 80, 64, 8, 128, 152064, False),
}
QWEN3 = {
    "0.6B": (1024, 3072, 28, 16, 8, 128, 151936, True),
    "1.7B": (2048, 6144, 28, 16, 8, 128, 151936, True),
    "4B": (2560, 9728, 36, 32, 8, 128, 151936, True),
    "8B": (4096, 12288, 36, 32, 8, 128, 151936, False),
    "14B": (5120, 17408, 40, 40, 8, 128, 151936, False),
    "32B": (5120, 25600, 64, 64, 8, 128, 151936, False),
}
LLAMA = {
    "3.2-1B": (2048, 8192, 16, 32, 8, 64, 128256, True),
    "3.2-3B": (3072, 8192, 28, 24, 8, 128, 128256, True),
    "3.1-8B": (4096, 14336, 32, 32, 8, 128, 128256, False),
    "3.1-70B": (8192, 28672, 80, 64, 8, 128, 128256, False),
}
"""Sizes by name: hidden, intermediate, layers, heads, key-value heads, head, vocabulary, tied."""

Sizes = tuple[int, int, int, int, int, int, int, bool]


def known_shape(path: str) -> Shape | None:
    """The shape of a model by its id on the hub; None if it is not in the table."""
    return KNOWN.get(path)


def _shape(sizes: Sizes, *, qkv_bias: bool = False, qk_norm: bool = False) -> Shape:
    hidden, intermediate, layers, heads, kv_heads, head, vocabulary, tied = sizes
    return Shape(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head,
        vocab_size=vocabulary,
        tied=tied,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
    )


def _all() -> Iterator[tuple[str, Shape]]:
    """The ids on the hub with their shapes."""
    for size, sizes in QWEN25.items():
        shape = _shape(sizes, qkv_bias=True)
        yield from ((f"Qwen/Qwen2.5-{size}{end}", shape) for end in ("", "-Instruct"))
        if size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B"):
            yield from ((f"Qwen/Qwen2.5-Coder-{size}{end}", shape) for end in ("", "-Instruct"))
        if size in ("1.5B", "72B"):
            yield from ((f"Qwen/Qwen2.5-Math-{size}{end}", shape) for end in ("", "-Instruct"))
    math = _shape((*QWEN25["7B"][:6], 152064, False), qkv_bias=True)
    yield from ((f"Qwen/Qwen2.5-Math-7B{end}", math) for end in ("", "-Instruct"))
    for size, sizes in QWEN3.items():
        shape = _shape(sizes, qk_norm=True)
        yield f"Qwen/Qwen3-{size}", shape
        if size != "32B":
            yield f"Qwen/Qwen3-{size}-Base", shape
    yield "Qwen/Qwen3-4B-Instruct-2507", _shape(QWEN3["4B"], qk_norm=True)
    yield "Qwen/Qwen3-4B-Thinking-2507", _shape(QWEN3["4B"], qk_norm=True)
    for size, sizes in LLAMA.items():
        yield from ((f"meta-llama/Llama-{size}{end}", _shape(sizes)) for end in ("", "-Instruct"))
    yield "meta-llama/Llama-3.3-70B-Instruct", _shape(LLAMA["3.1-70B"])
    distilled = "deepseek-ai/DeepSeek-R1-Distill"
    untied = (*QWEN25["1.5B"][:7], False)
    yield f"{distilled}-Qwen-1.5B", _shape(untied, qkv_bias=True)
    for size in ("7B", "14B", "32B"):
        yield f"{distilled}-Qwen-{size}", _shape(QWEN25[size], qkv_bias=True)
    yield f"{distilled}-Llama-8B", _shape(LLAMA["3.1-8B"])
    yield f"{distilled}-Llama-70B", _shape(LLAMA["3.1-70B"])


KNOWN = dict(_all())
"""Shapes by id on the hub."""
