"""sentencepiece, tokenizers and AutoTokenizer give the same ids for any text."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from support.corpus import Corpus
from support.sentencepiece_files import train_sentencepiece
from tokenizers import Tokenizer

from bigbird_ds.errors import DataError
from bigbird_ds.vocabulary import Vocabulary
from bigbird_ds.white_space import PIECE, normalize_white_space
from data_prep.families import BIGBIRD_SPECIAL_PIECES as SPECIAL_PIECES
from data_prep.tokenizer_folder import write_tokenizer_folder

ORIGINAL = Path(__file__).resolve().parents[2].parent / "shared" / "vocab"

HARD_TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\t",
    " \n ",
    "plain text, nothing else.",
    " leading",
    "trailing ",
    "  many   spaces  everywhere  ",
    "tab\tand\nnewline\r\nand\x0bmore",
    "a \n b \n",
    "a  \n\n  b",
    "no\u00a0break, thin\u2009space, \u3000wide\u3000",
    "caf\u00e9 cafe\u0301 \ufb01ne \u2460 \uff21",
    "\U0001f600 \U0001f600\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "日本語のテスト 中文测试 한국어",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea हिन्दी",
    "\u2581 \u2581a a\u2581 \u2581\u2581",
    "zero\u200bwidth\ufeffmarks\u00ad",
    "-------- ======== ******** ........ ||||||||",
    "x<sep_3>y <sep_3> z [CLS] and [SEP]",
    "supercalifragilisticexpialidocious" * 20,
    "\x00\x01\x7f",
]


def _trained_with_nmt_nfkc(folder: Path) -> Path:
    """A model with a character map, as the original Pegasus vocabulary has one."""
    symbols = (*(f"<sep_{i}>" for i in range(62)), "[CLS]", "[SEP]", "[MASK]")
    return train_sentencepiece(folder, bos=2, unk=len(symbols) + 3, symbols=symbols)


BIGBIRDS = ["trained", "nmt_nfkc", "bigbird"]
of_bigbird = pytest.mark.parametrize("folder", BIGBIRDS, indirect=True)  # not of the other family


@pytest.fixture(scope="module", params=[*BIGBIRDS, "pegasus", "pegasus_lines"])
def folder(
    request: pytest.FixtureRequest, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tokenizer folder of each kind of model."""
    if request.param == "trained":
        return corpus.tokenizer
    out = tmp_path_factory.mktemp(request.param)
    if request.param == "nmt_nfkc":
        spiece = _trained_with_nmt_nfkc(tmp_path_factory.mktemp("model"))
    else:
        spiece = ORIGINAL / f"{request.param.removesuffix('_lines')}.model"
        if not spiece.is_file():
            pytest.skip("the original vocabularies are not here (../shared/vocab)")
    write_tokenizer_folder(spiece, out, newline=PIECE if out.name.startswith("pegasus_l") else None)
    return out


class Programs:
    """The three that must agree; a class, so that failures do not print vocabularies."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.processor = SentencePieceProcessor(model_file=str(folder / "spiece.model"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.auto_tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.newline = Vocabulary.from_folder(folder).newline

    def ids(self, text: str) -> tuple[list[int], list[int], list[int]]:
        """Ids by sentencepiece, as in the shards, and by the others from the raw text."""
        return (
            self.processor.EncodeAsIds(normalize_white_space(text, self.newline)),
            self.tokenizer.encode(text, add_special_tokens=False).ids,
            self.auto_tokenizer.encode(text, add_special_tokens=False),
        )


@pytest.fixture(scope="module")
def programs(folder: Path) -> Programs:
    return Programs(folder)


@pytest.fixture(scope="module")
def processor(programs: Programs) -> SentencePieceProcessor:
    return programs.processor


@pytest.fixture(scope="module")
def auto_tokenizer(programs: Programs) -> Any:
    return programs.auto_tokenizer


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_ids_are_equal_on_hard_texts(text: str, programs: Programs) -> None:
    expected, *others = programs.ids(text)
    assert others == [expected, expected]


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_models_trained_here_need_no_step_before_them(text: str, corpus: Corpus) -> None:
    processor = SentencePieceProcessor(model_file=str(corpus.tokenizer / "spiece.model"))
    assert processor.EncodeAsIds(text) == processor.EncodeAsIds(normalize_white_space(text))


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=80))
def test_ids_are_equal_on_any_text(text: str, programs: Programs) -> None:
    # intended differences: see data_prep/tokenizer_folder.py
    assume(not any(name in text for name in SPECIAL_PIECES.values()))
    expected, *others = programs.ids(text)
    assert others == [expected, expected]


def test_ids_are_equal_on_real_text(folder: Path, programs: Programs) -> None:
    from pydoc_data.topics import topics

    scores_are_exact = not folder.name.startswith(("pegasus", "nmt_nfkc"))
    text = " ".join(" ".join(topics.values()).split())
    for start in range(0, len(text), 2000):
        expected, ids, _ = programs.ids(text[start : start + 2000])
        if scores_are_exact:
            assert ids == expected
        else:  # float32 rounding decides between segmentations of the same score, in rows of dashes
            scores = [sum(map(programs.processor.GetScore, each)) for each in (ids, expected)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@of_bigbird
def test_a_mask_in_a_text_is_the_mask_id_and_takes_the_space_before_it(
    processor: SentencePieceProcessor, auto_tokenizer: Any
) -> None:
    assert auto_tokenizer.mask_token_id == 67
    before, after = processor.EncodeAsIds("The capital is"), processor.EncodeAsIds("of all")
    ids = auto_tokenizer.encode("The capital is [MASK] of all", add_special_tokens=False)
    assert ids == [*before, 67, *after]


@of_bigbird
def test_pairs_get_the_template_and_type_ids(auto_tokenizer: Any) -> None:
    encoded = auto_tokenizer("one", "two")
    one, two = (auto_tokenizer.encode(w, add_special_tokens=False) for w in ("one", "two"))
    assert encoded["input_ids"] == [65, *one, 66, *two, 66]
    assert encoded["token_type_ids"] == [0] * (len(one) + 2) + [1] * (len(two) + 1)


@of_bigbird
def test_special_ids_are_bigbirds(auto_tokenizer: Any, processor: SentencePieceProcessor) -> None:
    ids = [
        getattr(auto_tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos", "cls", "sep")
    ]
    assert ids == [0, 1, 2, 65, 66]
    assert auto_tokenizer.unk_token_id == processor.unk_id()
    assert len(auto_tokenizer) == processor.GetPieceSize()


def test_a_batch_is_filled_up_and_cut_at_the_end(auto_tokenizer: Any) -> None:
    short, long = (auto_tokenizer.encode(words) for words in ("one", "one two three four"))
    batch = auto_tokenizer(["one", "one two three four"], padding=True)
    fill = [auto_tokenizer.pad_token_id] * (len(long) - len(short))
    assert batch["input_ids"] == [short + fill, long]
    assert batch["attention_mask"] == [[1] * len(short) + [0] * len(fill), [1] * len(long)]
    cut = auto_tokenizer.encode("one two three four", truncation=True, max_length=len(long) - 1)
    assert cut == long[:-2] + long[-1:]


def test_decoding_gives_the_text_back(auto_tokenizer: Any) -> None:
    text = "The value , of an expression is a statement ."  # spaces before signs stay
    assert auto_tokenizer.decode(auto_tokenizer.encode(text), skip_special_tokens=True) == text


def test_saved_again_by_transformers_it_gives_the_same_ids(
    auto_tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    auto_tokenizer.save_pretrained(str(tmp_path))
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in HARD_TEXTS:
        assert again.encode(text) == auto_tokenizer.encode(text)


@pytest.mark.parametrize("config", [None, '{"model_type": "big_bird"}'])
def test_auto_tokenizer_loads_without_a_word(
    corpus: Corpus, tmp_path: Path, config: str | None
) -> None:
    folder = tmp_path / "tokenizer"
    write_tokenizer_folder(corpus.tokenizer / "spiece.model", folder)
    if config:
        (folder / "config.json").write_text(config)
    program = (
        "import sys, transformers; t = transformers.AutoTokenizer.from_pretrained(sys.argv[1]);"
        "print(t.encode('a [MASK]')[-2:])"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "[67, 66]\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"model_type": "char"}, "CHAR"),
        ({"byte_fallback": True}, "byte fallback"),
        ({"add_dummy_prefix": False}, "no space"),
        ({"remove_extra_whitespaces": False}, "extra spaces"),
        ({"treat_whitespace_as_suffix": True}, "suffix"),
        ({}, "[CLS]"),
    ],
)
def test_models_that_work_differently_are_refused(
    options: dict[str, Any], what: str, tmp_path: Path
) -> None:
    SentencePieceTrainer.Train(
        sentence_iterator=iter(["some words to train on", "and some other words"] * 50),
        model_prefix=str(tmp_path / "other"),
        vocab_size=300 if "byte_fallback" in options else 30,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    with pytest.raises(DataError) as error:
        write_tokenizer_folder(tmp_path / "other.model", tmp_path / "out")
    assert what in str(error.value)
    assert not (tmp_path / "out").exists()
