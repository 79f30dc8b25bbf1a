"""Describe a shards folder as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_ds.data import format as shard_format
from bigbird_ds.data.format import Manifest, ShardRecord
from bigbird_ds.errors import DataError
from bigbird_ds.printable import escaped
from bigbird_ds.vocabulary import SPIECE_NAME
from bigbird_ds.white_space import NEWLINE_PIECE, PIECE

_BAR_WIDTH = 40
_SAMPLE_TOKENS = 120


def describe_shards(folder: Path) -> str:
    """Counts, lengths, options, tokenizer and the beginning of a document.

    Raises:
        DataError: ``folder`` is not a shards folder, or files that the description needs are
            missing or damaged.
    """
    manifest = Manifest.read(folder)
    lines = [f"{folder}: documents as token ids (bigbird_ds shards, version {manifest.version})"]
    for split, shards in manifest.splits.items():
        if shards:
            lines += ["", *_describe_split(folder, split, manifest)]
    lines += ["", *_describe_origin(manifest), "", *_describe_sample(folder, manifest)]
    return "\n".join(lines)


def _describe_split(folder: Path, split: str, manifest: Manifest) -> Iterator[str]:
    shards = manifest.splits[split]
    documents, tokens, sentences, chars = (
        manifest.total(split, name)
        for name in ("num_documents", "num_tokens", "num_sentences", "num_chars")
    )
    lengths = np.concatenate([_index(folder, shard)["num_tokens"] for shard in shards])
    yield (
        f"{split}: {documents:,} documents in {len(shards):,} shards,"
        f" {sum(shard.tar.bytes for shard in shards) / 1e6:,.1f} MB"
    )
    yield (
        f"  {tokens:,} tokens, {sentences:,} sentences, {chars:,} characters:"
        f" {chars / tokens:.2f} characters per token, {tokens / sentences:.1f} tokens per sentence"
    )
    middle, longest = int(np.median(lengths)), int(lengths.max())
    yield f"  median document {middle:,} tokens, longest {longest:,}"
    yield from _histogram(lengths)


def _histogram(lengths: np.ndarray) -> Iterator[str]:
    """Number of documents and share of the tokens by document length, in powers of two."""
    powers = np.floor(np.log2(lengths)).astype(int)
    for power in range(powers.min(), powers.max() + 1):
        chosen = lengths[powers == power]
        share = len(chosen) / len(lengths)
        bar = "#" * round(share * _BAR_WIDTH)
        tokens = chosen.sum(dtype=np.int64) / lengths.sum(dtype=np.int64)
        yield (
            f"  {1 << power:>9,} to {(2 << power) - 1:>9,} tokens: {len(chosen):>9,} documents,"
            f" {100 * tokens:4.1f} % of the tokens {bar}"
        ).rstrip()


def _describe_origin(manifest: Manifest) -> Iterator[str]:
    tokenizer = manifest.tokenizer
    yield f"tokenizer: {tokenizer.vocab_size:,} pieces, spiece.model sha256 {tokenizer.sha256}"
    if tokenizer.newline == PIECE:
        yield f"line ends: the piece {NEWLINE_PIECE}"
    total = sum(manifest.total(split, "num_tokens") for split in manifest.splits)
    share = 100 * manifest.num_unknown_tokens / max(1, total)
    yield f"unknown tokens: {manifest.num_unknown_tokens:,} ({share:.3f} %)"
    yield from _describe_unknown(manifest)
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in manifest.dropped.items())
    yield f"documents dropped: {dropped or 'none'}"
    yield "options:"
    for name, value in manifest.options.items():
        yield f"  {name}: {_in_words(value)}"


def _describe_unknown(manifest: Manifest) -> Iterator[str]:
    unknown = manifest.unknown
    if not unknown.num_characters:
        return
    num_chars = sum(manifest.total(split, "num_chars") for split in manifest.splits)
    yield (
        f"unknown characters: {unknown.num_characters:,}"
        f" ({100 * unknown.num_characters / max(1, num_chars):.3f} %);"
        f" {unknown.num_documents:,} documents lost more than"
        f" {100 * shard_format.LOSSY_SHARE:.0f} % of theirs"
    )
    shown = ", ".join(
        f"{escaped(character)} {count:,}"
        for character, count in list(unknown.most_frequent.items())[:20]
    )
    yield f"  most frequent: {shown}"


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(each)}" for name, each in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "none" if value is None else str(value)


def _describe_sample(folder: Path, manifest: Manifest) -> Iterator[str]:
    """The first tokens of the first document, decoded to text."""
    from sentencepiece import SentencePieceProcessor

    shard = next(shard for shards in manifest.splits.values() for shard in shards)
    row = _index(folder, shard)[0]
    dtype = shard_format.ids_dtype(manifest.tokenizer.vocab_size)
    count = min(_SAMPLE_TOKENS, int(row["num_tokens"]))
    try:
        with (folder / shard.tar.name).open("rb") as stream:
            stream.seek(int(row["ids_offset"]))
            ids = np.frombuffer(stream.read(count * dtype.itemsize), dtype)
        processor = SentencePieceProcessor(model_file=str(folder / SPIECE_NAME))
        text = processor.Decode(ids.tolist())
    except (OSError, ValueError, IndexError) as cause:
        raise _damaged(folder, cause) from cause
    yield f"the first {count:,} tokens of {shard.tar.name}:"
    yield textwrap.indent(textwrap.fill(escaped(text), 96), "  ")


def _index(folder: Path, shard: ShardRecord) -> np.ndarray:
    try:
        table: np.ndarray = np.load(folder / shard.documents.name, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise _damaged(folder, cause) from cause
    return table


def _damaged(folder: Path, cause: Exception) -> DataError:
    return DataError(
        "the shards folder is damaged",
        seen=str(cause),
        needed="the files as `bigbird-ds shard` wrote them",
        change=f"see `bigbird-ds verify {folder}`",
    )
