"""Units of measurement and currencies, with prefixes, in the words and signs of several languages.

A unit is a factor and the powers of its base units, so that units multiply, divide and convert.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from reasontrain.tasks.grading.lexicon import words_in
from reasontrain.tasks.grading.nouns import singular


class Unit(NamedTuple):
    """A product of powers of base units.

    Attributes:
        factor: its size in base units.
        dims: base units and their powers, sorted by name.
    """

    factor: Fraction = Fraction(1)
    dims: tuple[tuple[str, int], ...] = ()

    def times(self, other: Unit, power: int = 1) -> Unit:
        """Multiply by a power of another unit."""
        powers = dict(self.dims)
        for base, exponent in other.dims:
            powers[base] = powers.get(base, 0) + exponent * power
        return Unit(
            self.factor * other.factor**power,
            tuple(sorted((base, exponent) for base, exponent in powers.items() if exponent)),
        )


NONE = Unit()

_PREFIXES = {
    "T": ("tera", 12),
    "G": ("giga", 9),
    "M": ("mega", 6),
    "k": ("kilo", 3),
    "h": ("hecto", 2),
    "da": ("deca", 1),
    "d": ("deci", -1),
    "c": ("centi", -2),
    "m": ("milli", -3),
    "u": ("micro", -6),
    "μ": ("micro", -6),
    "µ": ("micro", -6),
    r"\mu": ("micro", -6),
    "n": ("nano", -9),
    "p": ("pico", -12),
}

_METRIC = """
m meter metre mètre metro метр
g gram gramme gramo gramm grammo
L liter litre litro
l liter
s second sec
W watt
J joule
N newton
Pa pascal
Hz hertz
V volt
A amp ampere
Ω ohm
mol mole
K kelvin
eV electronvolt
cal calorie
B byte
bit bit
F: farad
C: coulomb
T: tesla
H: henry
"""
"""Symbol and names of units that take prefixes. A colon: no symbol, which has another meaning."""

_OF_BASE = {
    "g": ("1/1000", "kg"),
    "L": ("1/1000", "m3"),
    "l": ("1/1000", "m3"),
    "W": ("1", "kg m2 s-3"),
    "J": ("1", "kg m2 s-2"),
    "N": ("1", "kg m s-2"),
    "Pa": ("1", "kg m-1 s-2"),
    "Hz": ("1", "s-1"),
    "V": ("1", "kg m2 s-3 A-1"),
    "Ω": ("1", "kg m2 s-3 A-2"),
    "F": ("1", "kg-1 m-2 s4 A2"),
    "C": ("1", "A s"),
    "T": ("1", "kg s-2 A-1"),
    "H": ("1", "kg m2 s-2 A-2"),
    "eV": ("1.602176634e-19", "kg m2 s-2"),
    "cal": ("4.184", "kg m2 s-2"),
    "B": ("8", "bit"),
}

_OTHERS = """
0.0254 m: in inch inche pulgada zoll pouce
0.3048 m: ft foot feet fuß
0.9144 m: yd yard
1609.344 m: mi mile milla meile
1852 m: nmi
299792458 m s-1: lightspeed
10000 m2: ha hectare hektar hectárea
4046.8564224 m2: ac acre
0.45359237 kg: lb lbs pound
0.028349523125 kg: oz ounce
907.18474 kg: ton
1000 kg: tonne tonelada
0.0002 kg: carat
3.785411784/1000 m3: gal gallon
0.946352946/1000 m3: qt quart
0.473176473/1000 m3: pt pint
0.2365882365/1000 m3: cup
0.0295735295625/1000 m3: floz
14.78676478125/1000000 m3: tbsp tablespoon
4.92892159375/1000000 m3: tsp teaspoon
1/1000000 m3: cc
1 m: metri metros метров метра
1000 m: км километр километров километра
0.01 m: см сантиметр сантиметров
0.001 m: мм
1 kg: кг килограмм килограммов
0.001 kg: г грамм граммов
1 s: segundo seconde sekunde secondo секунда секунд сек
60 s: min minute minuto minuti minuten minut минута минут мин
3600 s: h hr hour hora heure stunde stunden ora ore час часов часа uur
86400 s: day jour día dia tage tagen giorno giorni день дней дня
604800 s: wk week semana semaine woche wochen settimana settimane
1 month: month mes mese mesi mois monat monate
12 month: yr year año ans année jahr jahre anni лет год года
120 month: decade
1200 month: century
1609.344/3600 m s-1: mph
1000/3600 m s-1: kph kmh kmph kmhr
0.3048 m s-1: fps
1852/3600 m s-1: knot kn
1/60 rev s-1: rpm
1 rev: rev revolution
1 deg: ° градусов degree deg grado degré
1/60 deg: arcmin arcminute
1/3600 deg: arcsec arcsecond
1 rad: rad radian
1 degC: ℃ celsius centigrade
1 degF: ℉ fahrenheit
3600000 kg m2 s-2: kWh kilowatthour
101325 kg m-1 s-2: atm atmosphere
6894.757 kg m-1 s-2: psi
745.7 kg m2 s-3: hp horsepower
1 dB: dB decibel
1/1000 m3: ℓ
1 unit: unit unidad unité einheit
1 USD: $ usd dollar buck dólar dollaro
1/100 USD: ¢ cent penny pence ct céntimo centime
1 EUR: € eur euro
1 GBP: £ gbp sterling quid
1 ¥: ¥ ￥
1 JPY: jpy yen 円 日元
1 CNY: cny rmb yuan 元 块 块钱 圆 人民币 元钱
1/10 CNY: 角 毛钱
1 INR: ₹ rs inr rupee
1 KRW: ₩ krw 원
1 RUB: ₽ rub ruble rouble рубль рублей рубля руб
1 CHF: chf franc
1 peso: peso
1 BRL: brl reais
1 CAD: cad
1 AUD: aud
1 HKD: hkd
1 TWD: twd
1 SGD: sgd
1 NZD: nzd
1 PLN: pln zł złoty złotych złote zloty
1 SEK: kr sek nok dkk krona kronor krone kroner
1 VND: ₫ vnd đồng đ
1 TRY: ₺ lira
1 UAH: ₴ uah hryvnia гривень гривня
1 NGN: ₦ ngn naira
1 PHP: ₱ php
1 ILS: ₪ ils shekel
1 THB: ฿ thb baht บาท
1 IDR: rp idr rupiah
1 m: 米 公尺 メートル 미터
1000 m: 千米 公里 キロメートル キロ 킬로미터
0.01 m: 厘米 公分 センチメートル センチ 센티미터
0.001 m: 毫米 ミリメートル 밀리미터
0.1 m: 分米
500 m: 里
0.001 kg: 克 グラム 그램
1 kg: 千克 公斤 キログラム 킬로그램
0.5 kg: 斤
1000 kg: 吨 噸 トン 톤
0.000001 kg: 毫克
1/1000 m3: 升 リットル 리터
1/1000000 m3: 毫升 ミリリットル 밀리리터
1 m2: 平米 平方米 平方メートル 제곱미터
0.0001 m2: 平方厘米 平方センチメートル 제곱센티미터
0.01 m2: 平方分米
1000000 m2: 平方千米 平方公里
10000 m2: 公顷
1 m3: 立方米 立方メートル
0.000001 m3: 立方厘米 立方センチメートル
0.001 m3: 立方分米
1 s: 秒 秒钟 초
60 s: 分钟 分鐘 분
3600 s: 小时 小時 个小时 時間 시간 钟头
86400 s: 天 日 일
604800 s: 周 星期 个星期 週間 주
1 month: 个月 月 ヶ月 か月 개월
12 month: 年 岁 歳 년 살
1 deg: 度
1 rad: 弧度
1 degC: 摄氏度
"""

AMBIGUOUS = frozenset("mgshLlNJWVAKCFΩ")
"""Letters that are a unit in a text or behind a space, and may be a variable elsewhere."""

_SAME_NUMBER = (
    {"deg", "degC"},
    {"deg", "degF"},
    {"¥", "JPY"},
    {"¥", "CNY"},
)
"""Signs with several meanings, of which either may be meant."""

_POUNDS = {"GBP", "kg"}
_POUND_KG = Fraction("0.45359237")


def _base(text: str) -> Unit:
    """Read `kg m2 s-3`."""
    unit = NONE
    for word in text.split():
        name = word.rstrip("-0123456789")
        power = int(word[len(name) :] or 1)
        unit = unit.times(Unit(Fraction(1), ((name, 1),)), power)
    return unit


def _number(text: str) -> Fraction:
    top, _, bottom = text.partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def _table() -> Iterator[tuple[str, Unit]]:
    for line in _METRIC.strip().splitlines():
        sign, *names = line.split()
        symbol = sign.rstrip(":")
        factor, base = _OF_BASE.get(symbol, ("1", symbol))
        unit = Unit(Fraction(factor)).times(_base(base))
        for short, (long, exponent) in (("", ("", 0)), *_PREFIXES.items()):
            scaled = unit._replace(factor=unit.factor * Fraction(10) ** exponent)
            if not sign.endswith(":"):
                yield short + symbol, scaled
            for name in names:
                yield long + name, scaled
                # `kilómetro`, `kilomètre`, `centímetro`
                yield long[:-1] + {"o": "ó", "i": "í"}.get(long[-1:], "") + name, scaled
    for line in _OTHERS.strip().splitlines():
        size, _, names_text = line.partition(": ")
        factor_text, _, base = size.partition(" ")
        for name in names_text.split():
            yield name, Unit(_number(factor_text)).times(_base(base))


SYMBOLS: dict[str, Unit] = {}
"""Every unit by its name or sign; names are singular and in lower case."""
for _name, _unit in _table():
    SYMBOLS.setdefault(_name, _unit)
SYMBOLS["Cal"] = SYMBOLS["kcal"]
SYMBOLS["C"] = SYMBOLS["celsius"]
SYMBOLS["F"] = SYMBOLS["fahrenheit"]
# prefixes that collide with words: `pt` is a pint, `cd` and `Gal` are nothing, `ha` a hectare
SYMBOLS["h"] = SYMBOLS["hour"]
SYMBOLS["min"] = SYMBOLS["minute"]
SYMBOLS["gm"] = SYMBOLS["g"]
for _name in ("kb", "Mb", "Gb"):
    SYMBOLS[_name] = SYMBOLS[_name + "it"]
for _name in ("PA", "dal", "hs", "ms ", "das", "pas"):
    SYMBOLS.pop(_name, None)

_LOWER = {name.lower(): unit for name, unit in reversed(SYMBOLS.items()) if len(name) > 1}

_GLUED_DIMENSIONS = {"quadrat": 2, "kvadrat": 2, "kubik": 3}
"""`Quadratmeter`, `kvadratmeter`, `Kubikmeter`."""

CURRENCY_SIGNS = frozenset("$€£¥₹₩₽￥¢₫₺₴₦₱₪฿")
CURRENCIES = frozenset(
    words_in(
        "USD EUR GBP ¥ JPY CNY INR KRW RUB CHF peso BRL CAD AUD HKD TWD SGD NZD PLN SEK VND TRY UAH"
        " NGN PHP ILS THB IDR"
    )
)
DOLLARS = {
    "us": "usd",
    "hk": "hkd",
    "nt": "twd",
    "r": "brl",
    "au": "aud",
    "a": "aud",
    "ca": "cad",
    "c": "cad",
    "s": "sgd",
    "nz": "nzd",
}
"""Letters before a dollar sign -> the currency."""


def find(word: str) -> Unit | None:
    """Find a unit by a word or sign; None for any other word."""
    unit = SYMBOLS.get(word)
    if unit is None and len(word) > 1:
        lower = word.lower()
        unit = _LOWER.get(lower)
        if unit is None:
            unit = _LOWER.get(singular(lower)) or _LOWER.get(lower.removesuffix("s"))
        for prefix, power in _GLUED_DIMENSIONS.items():
            if unit is None and lower.startswith(prefix):
                base = find(lower.removeprefix(prefix))
                unit = base and NONE.times(base, power)
    return unit


def is_currency(unit: Unit) -> bool:
    """Return True for an amount of money."""
    return len(unit.dims) == 1 and unit.dims[0][0] in CURRENCIES and unit.dims[0][1] == 1


def ratio(gold: Unit, answer: Unit) -> Fraction | None:
    """Return the size of the answer's unit in the gold answer's; None if they do not convert."""
    if gold.dims == answer.dims:
        return answer.factor / gold.factor
    bases = {base for base, _ in gold.dims} | {base for base, _ in answer.dims}
    if len(gold.dims) == len(answer.dims) == 1 and gold.dims[0][1] == answer.dims[0][1]:
        if bases in _SAME_NUMBER:
            return answer.factor / gold.factor
        # `units` are any unit of length, `square units` any of area
        if "unit" in bases and bases <= {"unit", "m", "deg"}:
            return Fraction(1)
        if bases == _POUNDS and _POUND_KG in (gold.factor, answer.factor):
            return Fraction(1)
    return None
