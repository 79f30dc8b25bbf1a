"""Raw text gives the ids of the shards, and models contain their Unicode normalization."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor
from support.corpus import Corpus
from tokenizers import Tokenizer

from bigbird_ds.cli.main import main
from bigbird_ds.white_space import PIECE, SPACE
from data_prep.encoding import DocumentEncoder
from data_prep.normalization import WHITE_SPACE
from data_prep.tokenizer_folder import write_tokenizer_folder

ORIGINAL = Path(__file__).resolve().parents[2].parent / "shared" / "vocab"
# Scores of the original Pegasus model sometimes tie, and rounding decides: see tokenizer_folder.
_FEW_TIES = {
    "trained": 0,
    "trained pegasus": 0,  # line ends are pieces, the default of the family
    "bigbird": 0,
    "pegasus": 2,
    "pegasus, line ends as pieces": 2,
}


def documents(corpus: Corpus) -> list[str]:
    """Real texts, except those with names of special pieces, which shards spell out."""
    texts = [json.loads(line)["text"] for line in corpus.documents.read_text().splitlines()]
    return [text for text in texts if "<" not in text and "[" not in text] + [
        "A title\r\n\r\nwith\ttabs,\u00a0and \x0b \x85 others.\u2028Next line\u2029A paragraph.",
        " \n\tFirst line. \n\n \r Third one!\n  an item\n\t- another.\f\nA page. The end\n \n",
        "One.\nTwo words. Three\nof it." + "\n" * 3000 + "Far below." + " " * 3000 + "\nEnd.",
        "abc。\ndef。 ghi。jkl。\r\nmno",
        "\n",
    ]


@pytest.mark.parametrize("kind", _FEW_TIES)
def test_auto_tokenizer_gives_the_ids_of_the_shards_on_raw_documents(
    kind: str, corpus: Corpus, pegasus_corpus: Corpus, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = {"trained": corpus, "trained pegasus": pegasus_corpus}.get(kind, corpus).tokenizer
    if not kind.startswith("trained"):
        spiece = ORIGINAL / f"{kind.partition(',')[0]}.model"
        if not spiece.is_file():
            pytest.skip("the original vocabularies are not here (../shared/vocab)")
        folder = tmp_path / "tokenizer"
        write_tokenizer_folder(spiece, folder, newline=PIECE if "pieces" in kind else SPACE)
    encoder, tokenizer = DocumentEncoder(folder), AutoTokenizer.from_pretrained(folder)
    texts = documents(corpus)
    assert len(texts) > 10
    others = 0
    for text in texts:
        expected = encoder.encode(text)
        found = tokenizer.encode(text, add_special_tokens=False)
        others += found != expected.ids.tolist()
        assert np.count_nonzero(np.array(found) == encoder.vocabulary.unk) == expected.num_unknown
    assert others <= _FEW_TIES[kind]
    has_pieces = kind in ("trained pegasus", "pegasus, line ends as pieces")
    assert encoder.vocabulary.newline == (PIECE if has_pieces else SPACE)


@pytest.fixture(scope="module", params=["none", "nfc", "nfkc"])
def folder(
    request: pytest.FixtureRequest, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    text = "Größe, naïve café, déjà vu, ångström, crème brûlée, phở và cộng. " * 20
    (folder / "a.txt").write_text(text)
    words = ["tokenizer", folder / "a.txt", corpus.documents, "--out", folder / request.param]
    words += ["--vocab-size", 600, "--normalization", request.param, "--character-coverage", 1]
    assert main([str(word) for word in words]) == 0
    return folder / request.param


def test_decomposed_text_is_known_after_nfc_and_nfkc(folder: Path) -> None:
    text = "Größe, naïve café, cộng phở \uff21\ufb01."
    encoder = DocumentEncoder(folder)
    composed = encoder.encode(unicodedata.normalize("NFC", text))
    decomposed = encoder.encode(unicodedata.normalize("NFD", text))
    is_same = composed.ids.tolist() == decomposed.ids.tolist()
    assert is_same == (folder.name != "none")
    assert (composed.num_unknown == 0) == (folder.name == "nfkc")  # full width and ligature


def test_both_files_of_the_folder_normalise_alike(folder: Path) -> None:
    processor = SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in (
        unicodedata.normalize("NFD", "Größe, naïve café, cộng phở, 한국어 ṩ."),
        "o\u0302\u0323 and o\u0323\u0302, \u212b, \uff21\ufb01 x\u0301",
        "tab\tand\nline\r\nends\u3000wide",
    ):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == processor.EncodeAsIds(text), text


def test_all_white_space_but_the_space_is_in_the_rules() -> None:
    assert "\n" in WHITE_SPACE and "\u3000" in WHITE_SPACE and " " not in WHITE_SPACE
    assert len(f"a{WHITE_SPACE}b".split()) == 2
