"""Read the samples of a shard's tar in sequence."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator

import numpy as np

from bigbird_ds.data.format import IDS_NAME, META_NAME, SENTENCES_NAME

_NAMES = [IDS_NAME, SENTENCES_NAME, META_NAME]


def read_samples(
    tar: tarfile.TarFile,
) -> Iterator[tuple[str, tarfile.TarInfo, dict[str, bytes]]]:
    """Yield (key, tar member of the ids, contents by name) of every sample.

    Raises:
        ValueError: members do not form a complete sample.
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
        yield key, group[0], dict(zip(_NAMES, contents, strict=True))


def array_of(content: bytes) -> np.ndarray:
    """The array of a .npy member."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array
