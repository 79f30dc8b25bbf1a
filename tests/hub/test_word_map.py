"""Words keep their embeddings when a warm start changes to our tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from support.corpus import Corpus
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from bigbird_ds.cli.main import main
from bigbird_ds.hub.auto import load_pretrained
from bigbird_ds.hub.word_map import byte_token_as_piece, word_piece_as_piece

transformers = pytest.importorskip("transformers", reason="transformers writes the checkpoints")

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 66,
}


def byte_pair_tokenizer() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    return tokenizer, trainer


def word_piece_tokenizer() -> tuple[Tokenizer, Any]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=1200, special_tokens=special)


def checkpoint(folder: Path, name: str) -> Tokenizer:
    """A checkpoint with its own kind of tokenizer, trained on the topics."""
    made = byte_pair_tokenizer() if name.startswith("Roberta") else word_piece_tokenizer()
    tokenizer, trainer = made
    tokenizer.train_from_iterator(topics.values(), trainer)
    torch.manual_seed(4)
    model_class = getattr(transformers, name)
    config = model_class.config_class(**SHAPE, vocab_size=tokenizer.get_vocab_size())
    model = model_class(config)
    with torch.no_grad():  # the bias too must be recovered
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.mark.parametrize(
    ("name", "special", "word"),
    [
        (
            "RobertaForMaskedLM",
            {"[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>", "<pad>": "<pad>"},
            "Ġ{}",
        ),
        (
            "BertForMaskedLM",
            {"[CLS]": "[CLS]", "[SEP]": "[SEP]", "[MASK]": "[MASK]", "<pad>": "[PAD]"},
            "{}",
        ),
    ],
)
def test_each_piece_takes_the_embedding_of_its_text(
    tmp_path: Path, corpus: Corpus, name: str, special: dict[str, str], word: str
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    theirs = checkpoint(source, name)
    words = ["import", str(source), str(out), "--tokenizer", str(corpus.tokenizer)]
    assert main(words) == 0
    assert main(["verify", str(out)]) == 0  # the tokenizer is the new one and matches the model
    model = load_pretrained(out)
    pieces = SentencePieceProcessor(model_file=str(corpus.tokenizer / "spiece.model"))
    assert model.config.vocab_size == pieces.GetPieceSize()
    assert (model.config.pad_token_id, model.config.sep_token_id) == (0, 66)
    ends = [pieces.PieceToId(piece) for piece in ("<s>", "</s>")]
    assert [model.config.bos_token_id, model.config.eos_token_id] == ends

    before = getattr(transformers, name).from_pretrained(source)
    old = before.get_input_embeddings().weight
    old_bias = before.get_output_embeddings().bias
    new = model.bert.embeddings.word_embeddings.weight
    new_bias = model.cls.predictions.bias
    ids = theirs.get_vocab()
    for piece, token in special.items():
        assert torch.equal(new[pieces.PieceToId(piece)], old[ids[token]])
    known = [
        text
        for text in ("the", "is", "of", "and", "a", "class")
        if word.format(text) in ids and not pieces.IsUnknown(pieces.PieceToId("\u2581" + text))
    ]
    assert len(known) >= 4
    for text in known:
        piece = pieces.PieceToId("\u2581" + text)
        assert torch.equal(new[piece], old[ids[word.format(text)]])
        assert torch.equal(new_bias[piece], old_bias[ids[word.format(text)]])

    reserved = pieces.PieceToId("<sep_7>")
    assert not torch.isin(new[reserved], old).any() and new_bias[reserved] == 0  # newly initialized

    several = 0
    unknown = ids["<unk>" if "<unk>" in ids else "[UNK]"]
    for index in range(101, pieces.GetPieceSize()):
        text = pieces.IdToPiece(index).replace("\u2581", " ")
        tokens = theirs.encode(text, add_special_tokens=False).ids if text.strip() else []
        if len(tokens) > 1 and as_token(name, text) not in ids and unknown not in tokens:
            several += 1
            torch.testing.assert_close(new[index], old[tokens].mean(0))
    assert several > 0
    report = json.loads((out / "import_report.json").read_text())
    assert f"{several} the mean of several" in report["differences"][-1]


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("RobertaForMaskedLM", "lm_head.decoder.weight"),
        ("BertForMaskedLM", "cls.predictions.decoder.weight"),
    ],
)
def test_a_decoder_that_differs_on_file_keeps_its_own_rows(
    tmp_path: Path, corpus: Corpus, name: str, decoder: str
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    theirs = checkpoint(source, name)
    tensors = load_file(source / "model.safetensors")
    words = next(value for key, value in tensors.items() if "word_embeddings" in key)
    tensors[decoder] = torch.randn(words.shape)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    assert main(["import", str(source), str(out), "--tokenizer", str(corpus.tokenizer)]) == 0
    model = load_pretrained(out)
    assert not model.config.tie_word_embeddings
    pieces = SentencePieceProcessor(model_file=str(corpus.tokenizer / "spiece.model"))
    piece = pieces.PieceToId("\u2581the")
    token = theirs.token_to_id("\u0120the" if name.startswith("Roberta") else "the")
    head = model.cls.predictions.decoder
    assert torch.equal(head.weight[piece], tensors[decoder][token])
    assert torch.equal(model.get_input_embeddings().weight[piece], words[token])
    bias = next(value for key, value in tensors.items() if key.endswith(("lm_head.bias", "s.bias")))
    assert torch.equal(head.bias[piece], bias[token])


@pytest.mark.parametrize("name", ["RobertaForMaskedLM", "BertForMaskedLM"])
def test_a_tokenizer_that_comes_along_is_read_by_transformers_as_before(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    checkpoint(source, name)
    said = {"do_lower_case": True, "model_max_length": 66}  # no class, as in old Hub folders
    (source / "tokenizer_config.json").write_text(json.dumps(said))
    assert main(["import", str(source), str(out)]) == 0
    assert "import with `--tokenizer DIR`" in capsys.readouterr().out
    before, after = (transformers.AutoTokenizer.from_pretrained(path) for path in (source, out))
    assert type(after) is type(before)
    assert after.special_tokens_map == before.special_tokens_map
    text = "The class of an object, and more"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    assert len(set(after(text)["input_ids"])) > 6

    # Another class that the source names is kept, in either file; none is kept with other files.
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    assert imported_class(source, tmp_path / "named") == "GPT2Tokenizer"
    (source / "tokenizer_config.json").unlink()
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"tokenizer_class": "GPT2Tokenizer"}))
    assert imported_class(source, tmp_path / "named-by-model") == "GPT2Tokenizer"
    ours = json.loads((corpus.tokenizer / "tokenizer_config.json").read_text())
    words = ["--tokenizer", str(corpus.tokenizer)]
    assert imported_class(source, tmp_path / "changed", *words) == ours["tokenizer_class"]
    assert f"to continue pretraining, set `model: {tmp_path}/changed`" in capsys.readouterr().out


def imported_class(source: Path, out: Path, *words: str) -> Any:
    assert main(["import", str(source), str(out), *words]) == 0
    return json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"]


def as_token(name: str, text: str) -> str:
    """How the source's tokenizer would write ``text`` if it were a single token."""
    if name.startswith("Roberta"):
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return str(whole.pre_tokenize_str(text)[0][0])
    return text.strip() if text.startswith(" ") else "##" + text


def test_tokens_are_read_as_text() -> None:
    assert word_piece_as_piece("the") == "\u2581the"
    assert word_piece_as_piece("##ing") == "ing"
    assert byte_token_as_piece("Ġthe") == "\u2581the"
    assert byte_token_as_piece("ing") == "ing"
    assert byte_token_as_piece("ĠÃ¼ber") == "\u2581\u00fcber"
    assert byte_token_as_piece("Ã") is None  # half a character


def test_a_tokenizer_that_cannot_be_changed_is_refused(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    transformers.BigBirdModel(
        transformers.BigBirdConfig(**SHAPE, vocab_size=200, block_size=4)
    ).save_pretrained(source)
    words = ["import", str(source), str(tmp_path / "out"), "--tokenizer", str(corpus.tokenizer)]
    assert main(words) == 2
    assert "does not apply to this checkpoint" in capsys.readouterr().err
    checkpoint(tmp_path / "bert", "BertModel")
    (tmp_path / "bert" / "tokenizer.json").unlink()
    words[1] = str(tmp_path / "bert")
    assert main(words) == 2
    assert "needs its tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
