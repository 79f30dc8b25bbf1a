"""Read the documents of a shard's tar in sequence."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bigbird_ds.data.format import IDS_NAME, META_NAME, SENTENCES_NAME
from bigbird_ds.data.sample_meta import DocumentMeta, read_meta

_NAMES = (IDS_NAME, SENTENCES_NAME, META_NAME)


@dataclass(frozen=True)
class StoredDocument:
    """A document of a tar.

    Attributes:
        number: its place among the documents of its unit, over all splits.
        ids_offset: byte offset of its first token id in the tar.
        ids: (num_tokens,) uint16 or uint32.
        sentence_starts: (num_sentences,) uint32 token offsets; the first is 0.
    """

    number: int
    ids_offset: int
    ids: np.ndarray
    sentence_starts: np.ndarray
    meta: DocumentMeta


def read_documents(tar: tarfile.TarFile) -> Iterator[StoredDocument]:
    """Yield the documents of all samples, of version 1 or 2.

    Raises:
        ValueError: members do not form a complete sample, or do not fit each other.
    """
    members = iter(tar)
    while group := list(itertools.islice(members, len(_NAMES))):
        key = group[0].name.partition(".")[0]
        found = [member.name for member in group]
        if found != [f"{key}.{name}" for name in _NAMES]:
            raise ValueError(f"{found[0]}: an incomplete sample")
        streams = [tar.extractfile(member) for member in group]
        contents = [stream.read() if stream else b"" for stream in streams]
        tar.members.clear()  # type: ignore[attr-defined]  # it keeps every member it has read
        yield from _documents(key, group[0], contents)


def _documents(
    key: str, ids_member: tarfile.TarInfo, contents: list[bytes]
) -> Iterator[StoredDocument]:
    ids, starts = map(_array_of, contents[:2])
    offset = ids_member.offset_data + ids_member.size - ids.nbytes
    token = sentence = 0
    for entry in read_meta(key, contents[2], len(ids), len(starts)):
        own_ids = ids[token : token + entry.num_tokens]
        own_starts = starts[sentence : sentence + entry.num_sentences]
        first = offset + token * ids.itemsize
        yield StoredDocument(entry.number, first, own_ids, own_starts, entry.meta)
        token += entry.num_tokens
        sentence += entry.num_sentences


def _array_of(content: bytes) -> np.ndarray:
    """The one-dimensional array of a .npy member."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    if array.ndim != 1:
        raise ValueError(f"an array of {array.ndim} dimensions")
    return array
