"""Words by which responses state an answer, per language.

A language is one entry of `LANGUAGES`. Every string is matched as it stands, in any case; none is a
pattern.
"""

from __future__ import annotations

from typing import NamedTuple


class Language(NamedTuple):
    """The words of one language.

    Attributes:
        nouns: names for the answer; "final" and other adjectives need not be among them.
        copulas: what connects such a noun with the value, beside a colon and an equals sign.
        ands: "and" between two values.
        ors: "or" between two values.
        causes: words that begin a remark after any answer: causes, explanations, negations.
        remarks: words that begin a remark after a number or formula, but may be part of a name.
        verbs: verbs of a sentence that leads to the value (`she has 5 apples`).
        ends: what a sentence may end with after the value.
        denials: copulas in the negative.
        affirmations: words before the answer that is put in the place of a denied one.
        direct: the value may follow the noun without a copula.
    """

    nouns: tuple[str, ...]
    copulas: tuple[str, ...] = ()
    ands: tuple[str, ...] = ()
    ors: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()
    affirmations: tuple[str, ...] = ()
    direct: bool = False


LANGUAGES = {
    "en": Language(
        nouns=("answer", "answers", "ans", "correct option", "correct choice", "right choice"),
        copulas=(
            *("is", "are", "was", "were", "will be", "would be", "should be", "must be", "equals"),
            *("becomes", "comes to", "comes out to", "comes out to be", "turns out to be"),
        ),
        ands=("and",),
        ors=("or",),
        causes=(
            *("because", "since", "so", "as", "which", "but", "not", "and not", "rather than"),
            *("instead of", "hence", "thus", "therefore", "i.e", "e.g", "namely", "assuming"),
            *("or equivalently", "or approximately", "or about", "or roughly", "or simply"),
            *("according to", "due to"),
        ),
        remarks=(
            *("that", "who", "where", "when", "while", "after", "before", "using", "given", "is"),
            *("are", "was", "were", "in total", "in all", "altogether", "overall", "combined"),
            *(
                "so far",
                "in this case",
                "as well",
                "in the end",
                "for sure",
                "rounded",
                "to the nearest",
            ),
            *("and nothing", "and that", "and it", "and this", "and we", "and the"),
            *("of them", "in length", "in height", "in width", "in area", "in volume", "of course"),
            *("to be exact", "to be precise", "in simplest form", "respectively", "from now"),
        ),
        verbs=(
            *("is", "are", "was", "were", "be", "has", "have", "had", "equals", "gives", "gets"),
            *(
                "makes",
                "earns",
                "costs",
                "needs",
                "takes",
                "contains",
                "becomes",
                "spends",
                "spent",
            ),
            *("needed", "paid", "pays", "made", "earned", "got", "left", "sold", "sells", "bought"),
            *("eats", "ate", "reads", "read", "saves", "saved", "received", "receives", "weighs"),
        ),
        denials=(
            "is not",
            "isn't",
            "are not",
            "aren't",
            "was not",
            "cannot be",
            "can't be",
            "is definitely not",
            "is certainly not",
            "is clearly not",
            "is surely not",
            "should not be",
            "is neither",
        ),
        affirmations=("but rather", "but instead", "but", "rather", "instead", "it is", "it's"),
    ),
    "fr": Language(
        nouns=("réponse",),
        copulas=("est", "sera", "serait", "vaut", "était", "c'est"),
        ands=("et",),
        ors=("ou",),
        causes=(
            "car",
            "parce que",
            "puisque",
            "donc",
            "soit",
            "qui",
            "c'est-à-dire",
            "et non",
            "au total",
        ),
        verbs=("est", "a", "font", "fait", "vaut", "donne", "reste", "coûte"),
        denials=("n'est pas", "n’est pas"),
        affirmations=("mais",),
    ),
    "de": Language(
        nouns=("antwort", "antworten"),
        copulas=("ist", "sind", "lautet", "lauten", "beträgt", "wäre", "war"),
        ands=("und",),
        ors=("oder",),
        causes=(
            "weil",
            "denn",
            "da",
            "also",
            "sondern",
            "nicht",
            "was",
            "das heißt",
            "d.h",
            "insgesamt",
        ),
        verbs=("ist", "sind", "hat", "haben", "beträgt", "kostet", "ergibt", "verdient", "braucht"),
        denials=("ist nicht", "lautet nicht", "sind nicht"),
        affirmations=("sondern",),
    ),
    "es": Language(
        nouns=("respuesta", "respuestas"),
        copulas=("es", "son", "sería", "será", "era"),
        ands=("y", "e"),
        ors=("o",),
        causes=("porque", "ya que", "pues", "que", "es decir", "por lo tanto", "y no", "en total"),
        verbs=("es", "son", "tiene", "hay", "cuesta", "gana", "quedan"),
        denials=("no es", "no son"),
        affirmations=("sino",),
    ),
    "pt": Language(
        nouns=("resposta", "respostas"),
        copulas=("é", "são", "é de", "seria", "será"),
        ands=("e",),
        ors=("ou",),
        causes=("porque", "pois", "já que", "que", "ou seja", "portanto", "no total", "e não"),
        verbs=("é", "são", "tem", "há", "custa", "ganha"),
        denials=("não é", "não são"),
        affirmations=("mas sim", "mas"),
    ),
    "it": Language(
        nouns=("risposta", "risposte"),
        copulas=("è", "e'", "sono", "sarebbe", "sarà"),
        ands=("e",),
        ors=("o",),
        causes=("perché", "poiché", "dato che", "che", "cioè", "ovvero", "in totale", "e non"),
        verbs=("è", "sono", "ha", "costa"),
        denials=("non è", "non sono"),
        affirmations=("ma", "bensì"),
    ),
    "ca": Language(
        nouns=("resposta",),
        copulas=("és", "són"),
        ands=("i",),
        ors=("o",),
        causes=("perquè", "ja que", "és a dir"),
    ),
    "ro": Language(
        nouns=("răspuns", "răspunsul", "raspuns", "raspunsul"),
        copulas=("este", "e", "sunt"),
        ands=("și",),
        ors=("sau",),
        causes=("pentru că", "deoarece", "adică"),
        verbs=("este", "are", "sunt"),
    ),
    "nl": Language(
        nouns=("antwoord", "antwoorden"),
        copulas=("is", "zijn", "luidt", "was"),
        ands=("en",),
        ors=("of",),
        causes=("omdat", "want", "dus", "namelijk", "dat wil zeggen", "in totaal", "niet"),
        verbs=("is", "zijn", "heeft", "kost"),
        denials=("is niet",),
        affirmations=("maar",),
    ),
    "sv": Language(
        nouns=("svar", "svaret"),
        copulas=("är", "blir"),
        ands=("och",),
        ors=("eller",),
        causes=("eftersom", "för att", "alltså", "inte"),
        verbs=("är", "har"),
        denials=("är inte",),
        affirmations=("utan",),
    ),
    "da, no": Language(
        nouns=("svar", "svaret"),
        copulas=("er", "blir", "bliver"),
        ands=("og",),
        ors=("eller",),
        causes=("fordi", "siden", "altså", "ikke"),
        verbs=("er", "har"),
        denials=("er ikke",),
        affirmations=("men",),
    ),
    "fi": Language(
        nouns=("vastaus",),
        copulas=("on",),
        ands=("ja",),
        ors=("tai",),
        causes=("koska", "eli", "sillä"),
        verbs=("on",),
    ),
    "pl": Language(
        nouns=("odpowiedź", "odpowiedzią", "odpowiedz"),
        copulas=("to", "jest", "wynosi", "brzmi"),
        ands=("i", "oraz"),
        ors=("lub", "albo"),
        causes=("ponieważ", "bo", "gdyż", "czyli", "więc", "a nie", "razem"),
        verbs=("to", "jest", "wynosi", "ma"),
        denials=("to nie", "nie jest"),
        affirmations=("lecz", "ale"),
    ),
    "cs, sk": Language(
        nouns=("odpověď", "odpoveď"),
        copulas=("je", "zní", "znie"),
        ands=("a",),
        ors=("nebo", "alebo"),
        causes=("protože", "pretože", "neboť", "tedy", "čili"),
        verbs=("je", "má"),
    ),
    "hr, sr, sl": Language(
        nouns=("odgovor", "одговор"),
        copulas=("je", "glasi", "је"),
        ands=("i", "in", "и"),
        ors=("ili", "ali", "или"),
        causes=("jer", "ker", "јер"),
        verbs=("je", "је"),
    ),
    "hu": Language(
        nouns=("válasz", "végeredmény"),
        copulas=("az", "a"),
        ands=("és",),
        ors=("vagy",),
        causes=("mert", "mivel", "azaz", "tehát"),
        direct=True,
    ),
    "ru": Language(
        nouns=("ответ", "ответом", "ответы"),
        copulas=("это", "равен", "будет", "является", "—", "–", "-"),
        ands=("и",),
        ors=("или",),
        causes=("потому что", "так как", "поскольку", "то есть", "т.е", "ведь", "а не", "всего"),
        verbs=("это", "равно", "равен", "составляет", "будет", "осталось"),
        direct=True,
        denials=("не", "— не"),
        affirmations=("а",),
    ),
    "uk": Language(
        nouns=("відповідь", "відповіддю"),
        copulas=("це", "є", "дорівнює", "—", "–", "-"),
        ands=("і", "й", "та"),
        ors=("або",),
        causes=("тому що", "оскільки", "бо", "тобто", "а не"),
        verbs=("це", "є", "дорівнює"),
        direct=True,
        denials=("не", "— не"),
        affirmations=("а",),
    ),
    "bg": Language(
        nouns=("отговор", "отговорът"),
        copulas=("е", "са"),
        ands=("и",),
        ors=("или",),
        causes=("защото", "тъй като", "тоест"),
        verbs=("е", "са"),
    ),
    "el": Language(
        nouns=("απάντηση",),
        copulas=("είναι",),
        ands=("και",),
        ors=("ή",),
        causes=("επειδή", "διότι", "γιατί", "δηλαδή"),
        verbs=("είναι", "έχει"),
    ),
    "tr": Language(
        nouns=("cevap", "cevabı", "cevabi", "yanıt", "yanıtı", "yanit"),
        ands=("ve",),
        ors=("veya", "ya da"),
        causes=("çünkü", "yani"),
        ends=(
            *("'dir", "'dır", "'dur", "'dür", "'tir", "'tır", "'tur", "'tür", "dir", "dır", "olur"),
            *("olacaktır", "olarak bulunur"),
        ),
        direct=True,
    ),
    "vi": Language(
        nouns=("đáp án", "đáp số", "câu trả lời", "trả lời"),
        copulas=("là", "bằng"),
        ands=("và",),
        ors=("hoặc", "hay"),
        causes=("vì", "bởi vì", "do đó", "tức là", "chứ không"),
        verbs=("là", "có", "bằng"),
        denials=("không phải là", "không là"),
        affirmations=("mà là",),
    ),
    "id, ms": Language(
        nouns=("jawaban", "jawabannya", "jawapan", "jawapannya"),
        copulas=("adalah", "ialah", "yaitu", "yakni"),
        ands=("dan",),
        ors=("atau",),
        causes=("karena", "kerana", "sebab", "jadi", "bukan"),
        verbs=("adalah", "ialah", "memiliki"),
        denials=("bukan",),
        affirmations=("melainkan", "tetapi"),
    ),
    "tl": Language(
        nouns=("sagot", "kasagutan"), copulas=("ay",), ands=("at",), ors=("o",), causes=("dahil",)
    ),
    "sw": Language(
        nouns=("jibu",), copulas=("ni",), ands=("na",), ors=("au",), causes=("kwa sababu",)
    ),
    "zh": Language(
        nouns=("答案", "答", "答复", "故选", "应选", "答案选", "正确选项"),
        copulas=("是", "为", "為", "就是", "应为", "應為", "应该是", "等于", "等於", "即为"),
        ands=("和", "与", "與", "及", "以及", "、"),
        ors=("或", "或者"),
        causes=("因为", "因為", "由于", "由於", "所以", "即", "也就是", "而不是", "不是", "其中"),
        verbs=("是", "为", "為", "有", "等于", "等於", "共", "需要", "剩下"),
        ends=("了", "的"),
        direct=True,
        denials=("不是", "不为", "不等于", "并不是"),
        affirmations=("而是", "应该是", "应为"),
    ),
    "ja": Language(
        nouns=("答え", "解答", "正解", "回答"),
        copulas=("は", "が"),
        ands=("と", "及び", "および", "、"),
        ors=("または", "あるいは"),
        causes=("なぜなら", "つまり", "ではなく", "すなわち"),
        verbs=("は", "が"),
        ends=("です", "である", "だ", "となります", "になります", "でした", "となる", "になる"),
        direct=True,
    ),
    "ko": Language(
        nouns=("정답", "해답", "답변", "답"),
        copulas=("은", "는", "이"),
        ands=("와", "과", "및", "그리고"),
        ors=("또는",),
        causes=("왜냐하면", "따라서", "즉", "이므로", "이기 때문"),
        verbs=("은", "는", "이", "가"),
        ends=(
            "입니다",
            "이다",
            "이에요",
            "예요",
            "이며",
            "이고",
            "임",
            "이 됩니다",
            "가 됩니다",
            "가 된다",
        ),
        direct=True,
    ),
    "hi, mr, ne": Language(
        nouns=("उत्तर", "जवाब", "जवाफ"),
        copulas=("है", "हैं", "होगा", "आहे", "हो"),
        ands=("और", "तथा", "आणि"),
        ors=("या", "किंवा"),
        causes=("क्योंकि", "चूंकि", "यानी", "कारण"),
        ends=("है", "हैं", "होगा", "आहे", "हो", "छ"),
        direct=True,
    ),
    "bn": Language(
        nouns=("উত্তর", "উত্তরটি"),
        copulas=("হল", "হলো", "হচ্ছে", "হবে"),
        ands=("এবং", "ও"),
        ors=("বা", "অথবা"),
        causes=("কারণ", "যেহেতু", "অর্থাৎ"),
        ends=("হবে", "হয়"),
        direct=True,
    ),
    "te": Language(
        nouns=("సమాధానం", "జవాబు"), ands=("మరియు",), ors=("లేదా",), causes=("ఎందుకంటే",), direct=True
    ),
    "ta": Language(
        nouns=("பதில்", "விடை"),
        ands=("மற்றும்",),
        ors=("அல்லது",),
        causes=("ஏனெனில்",),
        ends=("ஆகும்",),
        direct=True,
    ),
    "th": Language(
        nouns=("คำตอบ", "คำตอบสุดท้าย"),
        copulas=("คือ", "เป็น", "เท่ากับ"),
        ands=("และ",),
        ors=("หรือ",),
        causes=("เพราะ", "เนื่องจาก", "ดังนั้น"),
        verbs=("คือ", "มี"),
        ends=("ครับ", "ค่ะ"),
        direct=True,
    ),
    "ar": Language(
        nouns=("الجواب", "الإجابة", "الاجابة", "إجابة", "جواب"),
        copulas=("هو", "هي", "هى", "تساوي", "يساوي"),
        ands=("و",),
        ors=("أو",),
        causes=("لأن", "حيث", "أي", "وليس"),
        verbs=("هو", "هي"),
        direct=True,
    ),
    "fa": Language(
        nouns=("پاسخ", "جواب"),
        copulas=("برابر", "برابر با", "عبارت است از"),
        ands=("و",),
        ors=("یا",),
        causes=("زیرا", "چون", "یعنی"),
        ends=("است", "می‌باشد", "می باشد"),
        direct=True,
    ),
    "ur": Language(
        nouns=("جواب",),
        ands=("اور",),
        ors=("یا",),
        causes=("کیونکہ", "یعنی"),
        ends=("ہے", "ہیں", "ہوگا"),
        direct=True,
    ),
    "he": Language(
        nouns=("התשובה", "תשובה"),
        copulas=("היא", "הוא", "הינה"),
        ands=("ו",),
        ors=("או",),
        causes=("כי", "מכיוון", "כלומר"),
        direct=True,
    ),
}
"""Code(s) of ISO 639-1 -> words."""

ALTERNATIVES = (
    *("maybe", "perhaps", "possibly", "alternatively", "alternately", "peut-être", "vielleicht"),
    *("quizás", "forse", "talvez", "misschien", "возможно", "可能", "也许"),
)
"""Words that put another value beside the one before."""

HEDGES = ("also", "else", "either", "probably", "it", "could", "might", "may", "be", "even")
"""Words that may stand beside "and" and "or" between two values that are both claimed."""

RETRACTIONS = (
    *("wait", "no", "not", "wrong", "incorrect", "mistake", "error", "actually", "oops", "sorry"),
    *("hmm", "hold", "scratch", "correction", "instead", "rather", "but", "should", "recheck"),
)
"""Words that take back what was said before them."""

TOTALS = (
    *("total", "in total", "sum", "altogether", "overall", "insgesamt", "gesamt", "totale"),
    *("somme", "suma", "total général", "итого", "всего", "合计", "总计", "一共", "合計", "합계"),
)
"""Labels of the last line of a list whose other lines are its parts."""

ORS = tuple({word: None for language in LANGUAGES.values() for word in language.ors})
ANDS = tuple({word: None for language in LANGUAGES.values() for word in language.ands})
