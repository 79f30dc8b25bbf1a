"""Special ids, names and templates of the two tokenizer families.

BigBird: <pad> 0, </s> 1, <s> 2, <sep_0> 3 .. <sep_61> 64, [CLS] 65, [SEP] 66, [MASK] 67, unused
ones up to 99, <unk> 100; learned pieces follow. A text becomes ``[CLS] text [SEP]``.

Pegasus: <pad> 0, </s> 1, <mask_1> 2 (a sentence), <mask_2> 3 (a word), <unk_2> 4 .. <unk_102> 104,
<unk> 105. A text becomes ``text </s>``. There are two kinds of files. Those of the original code
contain all of these, under other names. Those on the Hub lack the 103 ids from 2 on, by which
transformers offsets every id; they are inserted here, so that ids need no offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigbird_ds.errors import DataError
from bigbird_ds.vocabulary import (
    BIGBIRD,
    PEGASUS,
    PEGASUS_SENTENCE_MASK,
    PEGASUS_UNKNOWN,
    PEGASUS_WORD_MASK,
)
from data_prep.sentencepiece_model import Piece, PieceType, SentencePieceModel, insert_pieces

_BIGBIRD_UNKNOWN = 100
_HUB_UNKNOWN = 2  # of Pegasus files on the Hub, after <pad> and </s>
_PEGASUS_MASKS = ["<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103))]


@dataclass(frozen=True)
class Family:
    """A family of tokenizers.

    Attributes:
        name: ``bigbird`` or ``pegasus``.
        unknown_id: id of <unk>; all lower ids are special too.
        user_defined: pieces that training inserts between <s> or </s> and <unk>.
        has_bos: whether id 2 is <s>.
        single, pair: ``tokenizers`` templates of one text (A) and of a pair (A, B).
    """

    name: str
    unknown_id: int
    user_defined: Sequence[str]
    has_bos: bool
    single: str
    pair: str

    @property
    def num_special(self) -> int:
        return self.unknown_id + 1

    def special_pieces(self, pieces: Sequence[Piece]) -> dict[str, str]:
        """Keys of ``tokenizer_config.json`` and their pieces; those of Pegasus depend on ids."""
        if self.name == BIGBIRD:
            return dict(BIGBIRD_SPECIAL_PIECES)
        return {
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "mask_token": pieces[PEGASUS_WORD_MASK].text,
            "mask_token_sent": pieces[PEGASUS_SENTENCE_MASK].text,
        }


BIGBIRD_SPECIAL_PIECES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "[SEP]",
    "pad_token": "<pad>",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
FAMILIES = {
    BIGBIRD: Family(
        name=BIGBIRD,
        unknown_id=_BIGBIRD_UNKNOWN,
        user_defined=[
            *(f"<sep_{i}>" for i in range(62)),
            *("[CLS]", "[SEP]", "[MASK]"),
            *(f"<unused_{i}>" for i in range(68, _BIGBIRD_UNKNOWN)),
        ],
        has_bos=True,
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
    ),
    PEGASUS: Family(
        name=PEGASUS,
        unknown_id=PEGASUS_UNKNOWN,
        user_defined=_PEGASUS_MASKS,
        has_bos=False,
        single="$A:0 </s>:0",
        pair="$A:0 $B:0 </s>:0",
    ),
}


def family_of(model: SentencePieceModel) -> Family:
    """The family of a model, determined by the id of its unknown piece."""
    is_pegasus = model.unknown_id == PEGASUS_UNKNOWN or _is_hub_pegasus(model)
    return FAMILIES[PEGASUS if is_pegasus else BIGBIRD]


def with_all_ids(data: bytes, source: Path) -> bytes:
    """Return a serialized model with all ids of its family, inserting Pegasus' masks if needed.

    Raises:
        DataError: not a sentencepiece model.
    """
    model = SentencePieceModel.parse(data, source)
    if not _is_hub_pegasus(model):
        return data
    masks = [Piece(name, 0.0, PieceType.USER_DEFINED) for name in _PEGASUS_MASKS]
    return insert_pieces(data, _HUB_UNKNOWN, masks)


def check_family(model: SentencePieceModel, wanted: str, source: Path) -> None:
    """Raise DataError unless ``model`` belongs to the family ``wanted``."""
    found = family_of(model).name
    if found != wanted:
        raise DataError(
            "the sentencepiece model is of the wrong family",
            seen=f"{source}: {found}, by its <unk> at id {model.unknown_id}",
            needed=f"a model of the {wanted} family",
            change=f"--family {found}, or --spiece-model",
        )


def _is_hub_pegasus(model: SentencePieceModel) -> bool:
    first = [piece.text for piece in model.pieces[:_HUB_UNKNOWN]]
    return model.unknown_id == _HUB_UNKNOWN and first == ["<pad>", "</s>"]
