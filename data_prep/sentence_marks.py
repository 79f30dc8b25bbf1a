"""Tables of ``sentences``: the marks and words that determine where a sentence ends."""

from __future__ import annotations

OPENING = "\"'\u201c\u2018\u00ab(["  # quotes and brackets before a word
CLOSING = "\"'\u201d\u2019\u00bb)\\]"  # and after a word, escaped for a regular expression
CJK_CLOSING = "\u300d\u300f\u201d\u2019\uff09\u300b"

# Unicode's Sentence_Terminal property (17.0) without the ASCII and general-punctuation marks, which
# end a sentence only before white space, plus the two Tibetan marks that it lacks.
_RANGES = """
    0589 061d-061f 06d4 0700-0702 07f9 0837 0839 083d-083e 0964-0965 0f0d-0f0e 104a-104b 1362
    1367-1368 166e 1735-1736 17d4-17d5 1803 1809 1944-1945 1aa8-1aab 1b4e-1b4f 1b5a-1b5b 1b5e-1b5f
    1b7d-1b7f 1c3b-1c3c 1c7e-1c7f 2cf9-2cfb 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f
    a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe12 fe15-fe16 fe52 fe56-fe57 ff01 ff0e ff1f ff61
    10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd
    111de-111df 11238-11239 1123b-1123c 112a9 113d4-113d5 1144b-1144c 115c2-115c3 115c9-115d7
    11641-11642 1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44
    16a6e-16a6f 16af5 16b37-16b38 16b44 16d6e-16d6f 16e98 1bc9f 1da88
"""
# For a character class of a regular expression. These marks need no white space after them.
MARKS_WITHOUT_SPACE = "".join(
    "-".join(f"\\U{int(end, 16):08x}" for end in each.split("-")) for each in _RANGES.split()
)
# The same as pairs of first and last code point.
MARK_RANGES = [
    (int(each.partition("-")[0], 16), int(each.rpartition("-")[2], 16)) for each in _RANGES.split()
]
MARKS_BEFORE_SPACE = ".!?\u2026\u203c\u203d\u2047\u2048\u2049"
CJK_LETTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# never the last word of a sentence
ABBREVIATIONS = _words("""
    adj adv al approx assoc brig bzw ca capt cf cmdr col dept dr e.g eg esp gen gov hon i.e ie lt
    maj messrs mme mr mrs ms mt pres prof rep rev sen sgt sr st univ viz vs
""")
# not the last word before a number: "Fig. 3", "No. 7"
BEFORE_NUMBER = _words("""
    art ch chap eq eqs ex fig figs no nos p par pp ref refs sec sect tab vol vols
""")
# A capital and a full stop before one of these end a sentence ("vitamin C. The"); before other
# words it is an initial ("J. Smith").
SENTENCE_OPENERS = _words("""
    A After All Also Although An And Another As At Because Before Both But By Each During Each
    Finally First For From He Her Here His How However I If In It Its Many Most My No Not Now Of On
    Once One Only Or Other Our Several She Since So Some Such That The Their Then There Therefore
    These They This Those Thus To Two Under Until We What When Where Whether Which While Who Why
    With You Your
""")
# after an ordinal number in German: "3. Oktober"
BEHIND_ORDINAL = _words("""
    Januar J\u00e4nner Februar Feber M\u00e4rz April Mai Juni Juli August September Oktober November
    Dezember Jahrhundert Jahrhunderts Jahrhunderte Jahrtausend Jahrtausends Weltkrieg Weltkriegs
    Auflage Klasse Lebensjahr Lebensjahres Geburtstag Todestag Jahrestag Bundestag Stock Kapitel
""")
