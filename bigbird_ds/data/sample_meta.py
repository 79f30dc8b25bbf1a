"""``meta.json`` of a sample: counts, ids and sources of its documents, in both versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class DocumentMeta:
    """What is stored of a document besides its tokens and sentences.

    Attributes:
        num_chars: characters of its text.
        id: from the input, or a hash of the text.
        source: name of the input file.
    """

    num_chars: int
    id: str = ""
    source: str = ""


@dataclass(frozen=True)
class DocumentEntry:
    """A document of a sample.

    Attributes:
        number: its place among the documents of its unit, over all splits.
        num_tokens, num_sentences: how much of the sample's arrays is its own.
    """

    number: int
    num_tokens: int
    num_sentences: int
    meta: DocumentMeta


def meta_of_group(documents: Sequence[DocumentEntry]) -> bytes:
    """``meta.json`` of a sample of several documents: a list for each attribute.

    ``source`` has indices in ``sources``, because documents often share a file.
    """
    places: dict[str, int] = {}
    value = {
        "number": [each.number for each in documents],
        "num_tokens": [each.num_tokens for each in documents],
        "num_sentences": [each.num_sentences for each in documents],
        "num_chars": [each.meta.num_chars for each in documents],
        "id": [each.meta.id for each in documents],
        "source": [places.setdefault(each.meta.source, len(places)) for each in documents],
        "sources": list(places),
    }
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def meta_of_document(meta: DocumentMeta) -> bytes:
    """``meta.json`` of a sample of version 1, which is one document."""
    return json.dumps(asdict(meta), ensure_ascii=False, sort_keys=True).encode()


class _One(BaseModel):
    num_chars: int
    id: str = ""
    source: str = ""


class _Group(BaseModel):
    model_config = ConfigDict(strict=True)

    number: list[int]
    num_tokens: list[int]
    num_sentences: list[int]
    num_chars: list[int]
    id: list[str]
    source: list[int]
    sources: list[str]


def read_meta(key: str, content: bytes, num_tokens: int, num_sentences: int) -> list[DocumentEntry]:
    """The documents of a sample.

    Args:
        key: of the sample. In version 1 it has the document's number.
        content: of ``meta.json``.
        num_tokens, num_sentences: lengths of the sample's arrays.

    Raises:
        ValueError: it is not a ``meta.json`` of either version, or does not fit the arrays.
    """
    value = json.loads(content)
    if not isinstance(value, dict) or "num_tokens" not in value:
        one = _One.model_validate(value)
        meta = DocumentMeta(one.num_chars, one.id, one.source)
        return [DocumentEntry(_number_in(key), num_tokens, num_sentences, meta)]
    group = _Group.model_validate(value)
    if not set(group.source) <= set(range(len(group.sources))):
        raise ValueError(f"{key}: a source in its meta.json has no name")
    metas = [
        DocumentMeta(num_chars, identity, group.sources[place])
        for num_chars, identity, place in zip(group.num_chars, group.id, group.source, strict=True)
    ]
    columns = group.number, group.num_tokens, group.num_sentences, metas
    documents = [DocumentEntry(*row) for row in zip(*columns, strict=True)]
    if sum(group.num_tokens) != num_tokens or sum(group.num_sentences) != num_sentences:
        raise ValueError(f"{key}: wrong number of tokens or sentences in its meta.json")
    if not documents or documents[0].number != _number_in(key):
        raise ValueError(f"{key}: the key is not the number of its first document")
    return documents


def _number_in(key: str) -> int:
    return int(key.rpartition("-")[2])
