"""Answers made to hang, crash or mislead a grader, and ordinary ones to mix them into: all
generated, always the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

TRAP = "hostile-answer-was-run"
"""The file that answers which are Python code would make."""
SLOW = (
    r"\sum_{n=1}^{\infty} \frac{\sin(n^2)}{n^2}",
    r"\sum_{n=2}^{\infty} \frac{\sin(n)}{n \ln n}",
    r"\prod_{k=1}^{\infty} k!",
)
"""What is small on paper and keeps algebra busy for minutes."""

FAMILIES: dict[str, list[str]] = {
    "towers": [
        *(f"{n}^{{{n}^{n}}}" for n in range(5, 10)),
        *(f"{n}**{n}**{n}**{n}" for n in range(5, 10)),
        *("2^{" * n + "9" + "}" * n for n in (3, 9, 200)),
        *("e^" * n + "9" for n in (3, 50, 900)),
        "(9^9)^{9^9}",
        "9^{-9^{9}}",
        r"{9^{9}}^{9^{9}}",
        "10^{10^{10^{100}}}-10^{10^{10^{100}}}",
    ],
    "factorials": [
        *(f"{10**n}!" for n in (4, 6, 9, 90)),
        *("(" * n + "9" + "!)" * n for n in (2, 3, 100)),
        "9" + "!" * 500,
        r"\frac{100000000!}{99999999!}",
        r"\binom{1000000}{500000}",
        r"{10000000 \choose 5000000}",
        r"\Gamma(10^{9})",
        "2^{100000!}",
    ],
    "braces": [
        *(brace * n for brace in "{}([)]" for n in (1, 3_000)),
        *(
            opening * 20_000
            for opening in (r"\boxed{", r"\left(", r"\text{", r"\begin{pmatrix}", r"\[", "$$")
        ),
        r"\boxed" * 5_000,
        "}{" * 2_000,
        r"\{" * 1_500 + r"\}" * 1_400,
        r"\left\{1,2\right",
    ],
    "digits": [
        "7" * 1_000_000,
        "0." + "3" * 3_000_000,
        "1" + ",000" * 500_000,
        "1 " * 500_000,
        "9" * 5_000 + "/" + "9" * 5_000,
        "-" * 10_000 + "3",
        "1e99999999",
        "1e-99999999",
        "3." + "0" * 3_000 + "1",
        r"3\times 10^{99999999999}",
        "0" * 3_900 + "4",
        "1/" * 1_500 + "1",
        "٣" * 1_000,
        "²³" * 1_000,
        "3" + "\u0303" * 3_000,
    ],
    "nesting": [
        *(r"\frac{1}{" * n + "2" + "}" * n for n in (8, 15, 300, 9_000)),
        *(r"\sqrt{" * n + "2" + "}" * n for n in (15, 300)),
        *(r"\text{" * n + "3x" + "}" * n for n in (15, 300)),
        *("(" * n + "3x" + ")" * n for n in (15, 1_900)),
        "|" * 501,
        r"\left(" * 300 + "3x" + r"\right)" * 300,
        "{" * 1_900 + "1,2" + "}" * 1_900,
        "[" + "(1,2)," * 600 + "3]",
    ],
    "unicode": [
        "\u202e4321",
        "\u200b\u200c\u200d" * 1_000,
        "\ud800",
        "three\udfff",
        "💥" * 3_900,
        "３\ufe0f\u20e3" * 900,
        "Z̸̧" * 900,
        "答案是" * 9_000,
        "\u2028\u2029\x85" * 900,
        "ﷺ" * 3_000,
        "\ufeff" * 9 + "4",
        "ⅷ",
        "𝟛𝟜",
        "∞^∞",
    ],
    "nulls": [
        *("\x00" * n for n in (1, 3_900)),
        "1\x002",
        "\x003x\x00", "3\x00x+\x01", "\x01" * 900, "\x1b[2J4", "\x7f" * 99, "4\x04",
    ],
    "code": [
        f"__import__('pathlib').Path('{TRAP}').touch()",
        f"open('{TRAP}','w').close()",
        f"eval(compile(\"open('{TRAP}','w')\",'x','exec'))",
        f"exec('open(\"{TRAP}\",\"w\")')",
        f"(lambda: open('{TRAP}','w'))()",
        f"[open('{TRAP}','w') for _ in '1'][0]",
        f"\\sympify{{open('{TRAP}','w')}}",
        f"$(touch {TRAP})",
        f"; touch {TRAP} #",
        "().__class__.__mro__[-1].__subclasses__()",
        "__import__('os').abort()",
        "__import__('os').kill(__import__('os').getppid(), 9)",
        "(lambda f: f(f))(lambda f: f(f))",
        "[x for x in iter(int, 1)]",
        "'a' * 10**12",
        "while True: pass",
        "raise SystemExit",
        "{{7*7}}{% for i in range(10**9) %}x{% endfor %}",
        "<script>alert(1)</script>",
        "'; DROP TABLE answers; --",
        "\\input{/etc/passwd}",
        "\\def\\x{\\x\\x}\\x",
        "\\loop\\iftrue\\repeat",
        '["timeout"]\n[0.0, [true]]',
    ],
    "endless": [
        r"\prod_{k=1}^{100000} k",
        r"\prod_{k=1}^{\infty} k^{k}",
        r"\sum_{k=1}^{100000} \frac{1}{k}",
        r"\lim_{n \to \infty} n!^{n!}",
        r"\sum_{a=1}^{99} " * 9 + "a",
        r"\int " * 40 + "x" + " dx" * 40,
        "(x+1)^{5000}",
        "(a+b+c+d)^{999999}",
        "".join(f"(x+{n})" for n in range(90)),
        "+".join(f"x^{{{n}}}" for n in range(99)),
        r"\int_0^{\infty} e^{-x^{x}} dx",
        *SLOW,
    ],
    "repeats": [
        "e" * 100_000,
        "$" * 50_000,
        "<think>" * 9_000,
        "</think>" * 9_000,
        "<answer>" * 9_000,
        "####" * 9_000,
        "the answer is " * 9_000,
        "the answer to " * 9_000,
        "answer" + " " * 90_000,
        "A:\n" * 30_000,
        "**" * 30_000,
        "a=b=" * 900,
        r"\pm 1 \pm" * 50,
        "1," * 1_900,
        "1 and " * 600,
        r"x \approx " * 300 + "1",
        r"\cup [1,2]" * 300,
        r"5" + r"\text{a} " * 60 + "x+",
        "5 " + "a" * 3_900 + "!",
        "5" + " cm" * 1_200 + "!",
        r"\boxed{4}" + r" final answer is \(" * 5_000,
        r"\boxed{4}, " * 9_000,
        " \t" * 45_000,
        "\n" * 90_000,
        r"\begin{matrix}" + r"4 & 4 \\ " * 400 + r"\end{matrix}",
        "<" * 3_900,
        "x" + "_" * 3_900,
        "(" + "x " * 1_900 + "=",
    ],
}  # fmt: skip


def hostile(number: int = 200) -> list[str]:
    """So many hostile answers of all families, each as it stands or in a box; wrong for the gold
    answer 3.
    """
    bare = [
        text for text in chain.from_iterable(zip_longest(*FAMILIES.values())) if text is not None
    ]
    boxed = (rf"so \boxed{{{text}}}" for text in bare if len(text) < 5_000)
    return list(islice(chain(bare, boxed), number))


def ordinary(number: int = 2_000) -> list[tuple[str, str, bool]]:
    """(gold, response, right): numbers, fractions, words, lists, and a few that need algebra; every
    third is wrong.
    """
    return list(islice(_ordinary(), number))


def _ordinary() -> Iterator[tuple[str, str, bool]]:
    for i in range(1_000_000):
        right, n = i % 3 != 0, i + 10
        other = n if right else n + 1
        kind = i % 40
        if kind == 0:
            yield f"{n}x+1", rf"so we get \boxed{{1+{other}x}}", right
        elif kind < 10:
            yield str(n), f"He has {i} and then some more.\nThe answer is {other}.", right
        elif kind < 20:
            yield str(n), f"It is {i} less 3.\n#### {other}", right
        elif kind < 25:
            yield rf"\frac{{{n}}}{{7}}", rf"Hence \boxed{{\dfrac{{{other}}}{{7}}}}.", right
        elif kind < 30:
            yield (
                f"({n}, -2)",
                rf"<think>{n - 1}?</think> the point $\boxed{{\left({other}, -2\right)}}$",
                right,
            )
        elif kind < 35:
            yield rf"\text{{Aya {n}}}", rf"\boxed{{\text{{Aya {other}}}}}", right
        else:
            yield f"{n}.5", rf"It costs \boxed{{\${other}.50}}.", right


def mixed() -> list[tuple[str, str, bool]]:
    """2,000 ordinary answers with 200 hostile ones between them, ten by ten."""
    bad = [("3", text, False) for text in hostile()]
    good = ordinary()
    step = len(good) // len(bad)
    return [item for i, one in enumerate(bad) for item in (*good[i * step : (i + 1) * step], one)]


def processes_with(mark: str) -> list[int]:
    """Living processes, this one apart, that were started with these characters in their
    environment (Linux).
    """
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if (
                folder.name.isdigit()
                and int(folder.name) != os.getpid()
                and mark.encode() in (folder / "environ").read_bytes()
            ):
                found.append(int(folder.name))
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return found
