"""Writes a tokenizer folder: ``spiece.model`` and a ``tokenizer.json`` that gives the same ids.

The tokenizer that ``transformers`` builds from a ``spiece.model`` gives different ids: it keeps
spaces at the ends and drops the character map. So the ``tokenizers`` pipeline is built here, where
it reproduces each step of sentencepiece, and saved next to the model.

The ids agree for every text, with four intended exceptions:

- All white space becomes a space, as in the shards. Models trained here do the same; with the
  original BigBird vocabulary, sentencepiece turns a line end or tab into an unknown piece.
- A line end becomes Pegasus' ``<n>``, if the model says so (see ``bigbird_ds.white_space``), as in
  the shards; sentencepiece turns it into a space.
- ``[MASK]`` includes the space before it, as in transformers' BigBirdTokenizer: a mask replaces a
  whole word, whose piece includes that space.
- ``<pad>``, ``</s>`` and ``<unk>`` in a text become special ids, as everywhere in
  ``transformers``; sentencepiece encodes them as plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bigbird_ds import files
from bigbird_ds.errors import DataError
from bigbird_ds.hub.tokenizer_files import TOKENIZER_CONFIG_NAME, TOKENIZER_NAME
from bigbird_ds.vocabulary import BIGBIRD, SPIECE_NAME, WORD_START
from bigbird_ds.white_space import LINE_END, NEWLINE_PIECE, PIECE
from data_prep.families import check_family, family_of, with_all_ids
from data_prep.kmers import k_of, kmer_pattern
from data_prep.line_ends import with_newline
from data_prep.normalization import NFC, NFKC, NONE, WHITE_SPACE, model_name
from data_prep.sentencepiece_model import ModelType, PieceType, SentencePieceModel

_TYPES = (ModelType.UNIGRAM, ModelType.BPE)


def write_tokenizer_folder(
    spiece: Path, out: Path, family: str | None = None, newline: str | None = None
) -> None:
    """Write ``out/spiece.model`` and the files that ``transformers`` loads.

    ``spiece`` is copied unchanged, except that Pegasus files from the Hub get the ids that they
    lack (see ``families``): in a tokenizer folder the ids of ``spiece.model`` are the model's.
    With line ends as pieces it says so at its end.

    Args:
        family: the required family; None: either.
        newline: ``space``, ``piece`` or ``default`` (see ``line_ends``); None: as the model says.

    Raises:
        DataError: ``spiece`` is not a sentencepiece model, or one that is not supported.
        ConfigError: ``newline`` is ``piece`` and there is no such piece.
    """
    if not spiece.is_file():
        SentencePieceModel.read(spiece)  # raises the specific error
    data = with_all_ids(spiece.read_bytes(), spiece)
    model = SentencePieceModel.parse(data, spiece)
    if family is not None:
        check_family(model, family, spiece)
    if newline is not None:
        data = with_newline(data, newline, spiece)
        model = SentencePieceModel.parse(data, spiece)
    tokenizer = build_tokenizer(model, spiece)
    out.mkdir(exist_ok=True)
    # spiece.model last: a folder that has it is complete
    with files.atomic_write(out / TOKENIZER_NAME) as stream:
        stream.write(tokenizer.to_str(pretty=True).encode() + b"\n")
    files.write_json(out / TOKENIZER_CONFIG_NAME, _tokenizer_config(model))
    with files.atomic_write(out / SPIECE_NAME) as stream:
        stream.write(data)


def build_tokenizer(model: SentencePieceModel, source: Path | str = "the model") -> Any:
    """Build a ``tokenizers.Tokenizer`` with sentencepiece's ids and the family's special pieces.

    For the templates of texts and pairs and their type ids see ``families``.

    Raises:
        DataError: the model is neither a unigram nor a BPE model, has unsupported normalization
            options, or lacks a special piece. ``source`` names it in the message.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        normalizers,
        pre_tokenizers,
        processors,
    )

    _check_supported(model, source)
    tokenizer = Tokenizer(_subword_model(model))
    names = [p.text for p in model.pieces if p.type not in (PieceType.NORMAL, PieceType.UNUSED)]
    # `\A` and `\z`, because `^` and `$` match at every newline. Text begins with exactly one space;
    # a lone special piece stays unchanged, because `tokenizers` also normalizes the names of added
    # tokens.
    either = "|".join(re.escape(name) for name in names)
    steps: list[Any] = [
        # First, because a model's map may drop some white space, for which shards have a space.
        *_white_space_steps(model),
        *_unicode_steps(model),
        normalizers.Replace(Regex(f"[ {WORD_START}]+\\z"), ""),
        normalizers.Replace(Regex(" {2,}"), " "),
        normalizers.Replace(Regex(f"\\A *(?!(?:{either})\\z)(?=[^ ])"), " "),
    ]
    tokenizer.normalizer = normalizers.Sequence(steps)
    # The original vocabulary has pieces that span a space; then words cannot be encoded separately.
    reaches_over_space = any(WORD_START in piece.text[1:] for piece in model.pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        WORD_START, prepend_scheme="never", split=not reaches_over_space
    )
    if (k := k_of(model)) is not None:
        kmers = pre_tokenizers.Split(Regex(kmer_pattern(k)), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, kmers])
    tokenizer.decoder = decoders.Metaspace(WORD_START, prepend_scheme="always")
    family = family_of(model)
    special = family.special_pieces(model.pieces)
    mask = special["mask_token"]
    # Special pieces first; otherwise in id order.
    for name in sorted(names, key=lambda name: name not in special.values()):
        # normalized=True: matched after normalization, as in sentencepiece
        is_special = name in special.values()
        token = AddedToken(name, lstrip=name == mask, normalized=True, special=is_special)
        (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)([token])
    around = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "</s>")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=family.single,
        pair=family.pair,
        special_tokens=[(name, number) for name, number in around.items() if number is not None],
    )
    return tokenizer


def _subword_model(model: SentencePieceModel) -> Any:
    from tokenizers import models

    if model.model_type == ModelType.UNIGRAM:
        return models.Unigram(
            [(piece.text, piece.score) for piece in model.pieces],
            unk_id=model.unknown_id,
            byte_fallback=False,
        )
    return models.BPE(
        vocab={piece.text: number for number, piece in enumerate(model.pieces)},
        merges=_merges(model),
        unk_token=model.pieces[model.unknown_id].text,
        fuse_unk=True,
    )


def _merges(model: SentencePieceModel) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, in the order in which BPE merges them.

    sentencepiece merges the neighbors that make the piece of the highest score, whichever two they
    are.
    """
    learned = [piece for piece in model.pieces if piece.type == PieceType.NORMAL]
    known = {piece.text for piece in learned}
    return [
        (piece.text[:cut], piece.text[cut:])
        for piece in sorted(learned, key=lambda piece: -piece.score)
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in known and piece.text[cut:] in known
    ]


def _white_space_steps(model: SentencePieceModel) -> list[Any]:
    """As ``bigbird_ds.white_space.normalize_white_space``, each step in linear time."""
    from tokenizers import Regex, normalizers

    if model.newline != PIECE:
        return [normalizers.Replace(Regex(f"[{WHITE_SPACE}]"), " ")]
    others = "".join(each for each in WHITE_SPACE if each not in "\r\n")
    replacements = [
        (f"[{others} ]+", " "),
        ("\\A[ \r\n]+", ""),
        ("(?<![ \r\n])[ \r\n]+\\z", ""),
        (f" ?(?:{LINE_END.pattern}) ?", NEWLINE_PIECE),
    ]
    return [normalizers.Replace(Regex(old), new) for old, new in replacements]


def _unicode_steps(model: SentencePieceModel) -> list[Any]:
    from tokenizers import normalizers

    if model.normalizer == model_name(NFC):
        return [normalizers.NFC()]
    if model.normalizer == model_name(NFKC):
        return [normalizers.NFKC()]
    if model.normalizer == model_name(NONE) or k_of(model) or not model.charsmap:
        return []
    # One of sentencepiece's own maps. `tokenizers` looks up whole graphemes, sentencepiece uses the
    # longest match; they differ for some sequences of combining marks.
    return [normalizers.Precompiled(model.charsmap)]


def _tokenizer_config(model: SentencePieceModel) -> dict[str, Any]:
    family = family_of(model)
    special: dict[str, Any] = family.special_pieces(model.pieces)
    if sentence_mask := special.pop("mask_token_sent", None):
        special["additional_special_tokens"] = [sentence_mask]
    special["mask_token"] = {
        "__type": "AddedToken",
        "content": special["mask_token"],
        "lstrip": True,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": [
            "input_ids",
            *(["token_type_ids"] if family.name == BIGBIRD else []),
            "attention_mask",
        ],
        "padding_side": "right",
        "truncation_side": "right",
        **special,
    }


def _check_supported(model: SentencePieceModel, source: Path | str) -> None:
    """Raise DataError for unsupported models, for which the ids would differ."""
    reasons = [
        (model.model_type not in _TYPES, f"a model of type {model.model_type.name}"),
        (model.byte_fallback, "byte fallback"),
        (model.treat_whitespace_as_suffix, "white space as a suffix"),
        (not model.add_dummy_prefix, "no space before the text"),
        (not model.remove_extra_whitespaces, "extra spaces kept"),
        (not model.escape_whitespaces, "spaces not escaped"),
    ]
    for applies, seen in reasons:
        if applies:
            raise DataError(
                "unsupported kind of sentencepiece model",
                seen=f"{source}: {seen}",
                needed="a unigram or BPE model with sentencepiece's default handling of spaces",
                change="--spiece-model, or train one from documents",
            )
    present = {piece.text for piece in model.pieces}
    special = family_of(model).special_pieces(model.pieces)
    missing = [name for name in special.values() if name not in present]
    if missing:
        raise DataError(
            "the sentencepiece model lacks special pieces",
            seen=f"{source} without {', '.join(missing)}",
            needed=", ".join(special.values()),
            change="--spiece-model, or train one from documents",
        )
