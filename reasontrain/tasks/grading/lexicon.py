"""Words and signs around a number that change its value, and those that introduce it."""

from __future__ import annotations


def words_in(text: str) -> tuple[str, ...]:
    """The words of a text, for tables that would take a line per word as lists."""
    return tuple(text.split())


FUNCTIONS = frozenset(
    words_in(
        "sin cos tan cot sec csc log ln lg exp sqrt pi mod max min gcd lcm arcsin arccos arctan"
        " sinh cosh tanh det deg lim inf sup binom frac cdot times infty theta alpha beta abs floor"
        " ceil"
    )
)
"""Words of formulas, which no unit begins with."""
LEADS = frozenset(
    words_in(
        "the answer final is are a an about approximately approx roughly around exactly precisely"
        r" only just total sum of there so thus hence therefore equals result value positive i.e we"
        r" get have \approx \sim \therefore 约 約 共 一共 大约"
    )
)
"""Words before a number that say nothing of its value."""
BOUNDS = {
    "at least": "at least",
    "no less than": "at least",
    "no fewer than": "at least",
    "not less than": "at least",
    "at most": "at most",
    "no more than": "at most",
    "not more than": "at most",
    "up to": "at most",
    "more than": "more",
    "greater than": "more",
    "over": "more",
    "above": "more",
    "less than": "less",
    "fewer than": "less",
    "under": "less",
    "below": "less",
    "almost": "almost",
    "nearly": "almost",
    "不少于": "at least",
    "至少": "at least",
    "不超过": "at most",
    "至多": "at most",
    "最多": "at most",
}
BOUNDS_BEHIND = {
    "or more": "at least",
    "or greater": "at least",
    "or above": "at least",
    "or over": "at least",
    "or higher": "at least",
    "or less": "at most",
    "or fewer": "at most",
    "or below": "at most",
    "or under": "at most",
    "or lower": "at most",
    "at least": "at least",
    "at most": "at most",
    "以上": "at least",
    "以下": "at most",
    "以内": "at most",
    "多": "more",
}
DIRECTIONS = frozenset(
    words_in(
        "north south east west northeast northwest southeast southwest up down upward upwards"
        " downward downwards northward southward eastward westward clockwise counterclockwise"
        " anticlockwise forward forwards backward backwards ago early late earlier later overhead"
        " uphill downhill ad bc bce ce 东 南 西 北"
    )
)
MAGNITUDES = {
    "gross": 144,
    "quintillion": 10**18,
    "sextillion": 10**21,
    "septillion": 10**24,
    "googol": 10**100,
    "ten": 10,
    "tens": 10,
    "dozen": 12,
    "dozens": 12,
    "hundred": 100,
    "hundreds": 100,
    "thousand": 1000,
    "thousands": 1000,
    "lakh": 10**5,
    "lakhs": 10**5,
    "crore": 10**7,
    "crores": 10**7,
    "mille": 1000,
    "mil": 1000,
    "tausend": 1000,
    "mila": 1000,
    "тысяч": 1000,
    "тысячи": 1000,
    "тыс": 1000,
    "百": 100,
    "千": 1000,
    "万": 10**4,
    "萬": 10**4,
    "亿": 10**8,
    "億": 10**8,
    "兆": 10**12,
    "百万": 10**6,
    "千万": 10**7,
    "천": 1000,
    "만": 10**4,
    "억": 10**8,
    "打": 12,
}
for _size, _names in (
    (10**6, "million millions millionen millón millones milione milioni миллион миллионов млн"),
    (10**9, "billion billions milliard milliards milliarde milliarden миллиард миллиардов млрд"),
    (10**12, "trillion trillions billionen"),
    (10**15, "quadrillion quadrillions billiarde billiarden"),
):
    MAGNITUDES |= dict.fromkeys(_names.split(), _size)
PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "thirds": 3,
    "quarter": 4,
    "quarters": 4,
    "fourth": 4,
    "fourths": 4,
    "fifth": 5,
    "fifths": 5,
    "sixth": 6,
    "sixths": 6,
    "seventh": 7,
    "sevenths": 7,
    "eighth": 8,
    "eighths": 8,
    "ninth": 9,
    "ninths": 9,
    "tenth": 10,
    "tenths": 10,
    "hundredth": 100,
    "hundredths": 100,
    "thousandth": 1000,
    "thousandths": 1000,
}
MONEY_LETTERS = {
    "k": 10**3,
    "K": 10**3,
    "m": 10**6,
    "M": 10**6,
    "mn": 10**6,
    "mm": 10**6,
    "MM": 10**6,
    "mio": 10**6,
    "B": 10**9,
    "b": 10**9,
    "bn": 10**9,
    "T": 10**12,
}
"""Letters behind an amount of money that multiply it."""
PERCENTS = frozenset(["%", r"\%", "％", "percent", "pct", "prozent", "percents"])
DIMENSIONS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "平方": 2, "立方": 3}
DIMENSIONS |= dict.fromkeys(
    words_in(
        "carré carrés cuadrado cuadrados quadrado quadrados quadrato quadrati quadrat квадратных"
        " квадратный"
    ),
    2,
)
DIMENSIONS |= dict.fromkeys(
    words_in("cube cubes cúbico cúbicos cubo cubi kubik кубических кубический"), 3
)
EVERY = {
    "daily": "day",
    "weekly": "week",
    "hourly": "hour",
    "monthly": "month",
    "yearly": "year",
    "annually": "year",
}
PER = frozenset(["per", "/", "par", "por", "pro", "每"])

NUMBERS = {
    word: value
    for value, word in enumerate(
        words_in(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
            " fifteen sixteen seventeen eighteen nineteen"
        )
    )
}
NUMBERS |= {
    word: 10 * value
    for value, word in enumerate(
        words_in("twenty thirty forty fifty sixty seventy eighty ninety"), start=2
    )
}
FOREIGN_NUMBERS = {
    word: value
    for row in (
        "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze"
        " seize dix-sept dix-huit dix-neuf vingt",
        "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn"
        " fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig",
        "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince"
        " dieciséis diecisiete dieciocho diecinueve veinte",
        "zero um dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze"
        " dezesseis dezessete dezoito dezenove vinte",
        "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici"
        " quattordici quindici sedici diciassette diciotto diciannove venti",
        "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать"
        " тринадцать четырнадцать пятнадцать шестнадцать семнадцать восемнадцать девятнадцать"
        " двадцать",
    )
    for value, word in enumerate(words_in(row))
}
"""French, German, Spanish, Portuguese, Italian and Russian, to 20."""
CHINESE_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")}
CHINESE_DIGITS |= {"〇": 0, "两": 2, "兩": 2}
CHINESE_PLACES = {"十": 10, "百": 100, "千": 1000}
LARGE_NUMBERS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
ORDINALS = {
    word: value
    for value, word in enumerate(
        words_in(
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
            " thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
        ),
        start=1,
    )
}
