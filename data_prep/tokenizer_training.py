"""Trains a sentencepiece unigram or BPE model with a family's special ids on documents."""

from __future__ import annotations

import io
import re
import string
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bigbird_ds.errors import ConfigError, DataError
from bigbird_ds.keyed_random import keyed_generator
from bigbird_ds.log import logger
from bigbird_ds.vocabulary import BIGBIRD, WORD_START
from bigbird_ds.white_space import NEWLINE_AS_PIECE, NEWLINE_PIECE, PIECE, SPACE, Newline
from data_prep.encoding import sentences_of
from data_prep.families import FAMILIES, Family
from data_prep.fasta import check_sequence_options
from data_prep.input_kinds import Kind
from data_prep.inputs import STDIN, InputFile, find_inputs
from data_prep.kmers import kmer_model
from data_prep.normalization import NONE, model_name, write_rules
from data_prep.pieces import Piece
from data_prep.progress import Progress
from data_prep.readers import read_piece
from data_prep.records import BadRecord, Fields
from data_prep.sentencepiece_model import named_normalizer, round_scores
from data_prep.sentences import MAX_SENTENCE_CHARS, sentence_spans
from data_prep.sequence_spans import fixed_spans
from data_prep.units import plan_units

# ASCII letters, digits and punctuation are never unknown, even if rare in a corpus.
_ALWAYS_COVERED = string.ascii_letters + string.digits + string.punctuation

_DRAWS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class TrainingOptions:
    """Options of tokenizer training.

    Attributes:
        vocab_size: number of pieces, including the special ones (``num_special``).
        max_sentences: maximum number of sentences, a uniform sample of all. A million need about
            4 GB of memory.
        character_coverage: fraction of the characters that get a piece; the rest is unknown.
        fields: the field of a record with its text.
        skip_bad_records: skip records that are not documents; otherwise they are errors.
        family: the tokenizer family, which defines the special pieces.
        default_kind: the kind of inputs without a known suffix.
        text_kind: the document format of text files.
        normalization: one of NORMALIZATIONS, stored in the model.
        model_type: ``unigram`` or ``bpe``.
        newline: ``piece`` adds ``<n>`` for line ends; ``space``.
    """

    vocab_size: int
    max_sentences: int = 1_000_000
    character_coverage: float = 0.9995
    fields: Fields = field(default_factory=lambda: Fields("text"))
    skip_bad_records: bool = False
    family: Family = FAMILIES[BIGBIRD]
    default_kind: Kind | None = None
    text_kind: Kind = Kind.TEXT
    normalization: str = NONE
    model_type: str = "unigram"
    newline: Newline = SPACE

    @property
    def num_special(self) -> int:
        """Number of pieces that are not learned."""
        return self.family.num_special + (self.newline == PIECE)


def train_tokenizer(arguments: Sequence[str], options: TrainingOptions) -> bytes:
    """Train on the documents of the INPUT ``arguments``. Returns a ``spiece.model``.

    The same documents and options give the same bytes.

    Raises:
        ConfigError: a vocabulary size that is too large for the documents, or too small for their
            characters.
        DataError: no documents, or a record that is not a document.
    """
    pieces = list(_pieces(arguments, options))
    with Progress("reading", sum(piece.num_bytes for piece in pieces)) as progress:
        sentences = sample(_sentences(pieces, options, progress), options.max_sentences)
    if not sentences:
        raise _no_text(f"{len(pieces)} inputs without a sentence")
    logger.info(
        "training a %s model of %s pieces on %s sentences, %.1f MB",
        options.model_type,
        f"{options.vocab_size:,}",
        f"{len(sentences):,}",
        sum(map(len, sentences)) / 1e6,
    )
    has_sequences = any(piece.file.kind is Kind.FASTA for piece in pieces)
    model = round_scores(_train(sentences, options, has_sequences))
    return model + (NEWLINE_AS_PIECE if options.newline == PIECE else b"")


def make_kmer_tokenizer(k: int, family: Family) -> bytes:
    """Return a ``spiece.model`` of all k-mers; see ``kmers``."""
    text = [" ".join(_ALWAYS_COVERED)]
    size = family.num_special + len(_ALWAYS_COVERED) + 1  # and the space
    return kmer_model(_train(text, TrainingOptions(size, family=family)), k, family)


def sample(sentences: Iterable[str], size: int) -> list[str]:
    """Return a uniform sample of ``size`` sentences, or all if there are fewer.

    Reservoir sampling (Vitter 1985, algorithm R) with a fixed key: one pass, and only the sample is
    kept in memory.
    """
    generator = keyed_generator(0, "tokenizer sentences")
    chosen: list[str] = []
    places: list[int] = []
    for index, sentence in enumerate(sentences):
        if index < size:
            chosen.append(sentence)
            continue
        if not places:
            # For a sentence with n before it, a place in [0, n]; the next one's is popped first.
            bounds = range(index + _DRAWS_AT_ONCE, index, -1)
            places = generator.integers(0, list(bounds)).tolist()
        place = places.pop()
        if place < size:
            chosen[place] = sentence
    return chosen


def _pieces(arguments: Sequence[str], options: TrainingOptions) -> Iterator[Piece]:
    if STDIN not in arguments:
        whole = sys.maxsize  # no splitting needed
        inputs = find_inputs(arguments, options.default_kind, options.text_kind)
        check_sequence_options(options.fields, inputs)
        for unit in plan_units(inputs, whole):
            yield from unit.pieces
        return
    if len(arguments) > 1:
        raise ConfigError(
            "standard input cannot be combined with other inputs",
            seen=" ".join(arguments),
            needed="only -",
            change="INPUT",
        )
    stdin = InputFile(Path("/dev/stdin"), STDIN, Kind.JSON_LINES, "", 0, None)
    check_sequence_options(options.fields, [stdin])
    yield Piece(stdin, 0, sys.maxsize, 0)


def _sentences(
    pieces: Iterable[Piece], options: TrainingOptions, progress: Progress
) -> Iterator[str]:
    num_bytes = documents = skipped = 0
    for piece in pieces:
        for record in read_piece(piece, options.fields):
            num_bytes += record.num_bytes
            if isinstance(record, BadRecord):
                if not options.skip_bad_records:
                    raise record.error()
                skipped += 1
                continue
            documents += 1
            progress.update(num_bytes, documents=documents)
            yield from sentences_of(
                record.text,
                fixed_spans if record.is_sequence else sentence_spans,
                options.newline,
            )
    logger.info("read: %s", progress.summary(num_bytes, documents=documents))
    if skipped:
        logger.warning("skipped %s bad records", f"{skipped:,}")


def _train(sentences: list[str], options: TrainingOptions, has_sequences: bool = False) -> bytes:
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        with tempfile.TemporaryDirectory() as folder:
            SentencePieceTrainer.Train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type=options.model_type,
                vocab_size=options.vocab_size,
                character_coverage=options.character_coverage,
                # The space before a text is rare in sequences.
                required_chars=_ALWAYS_COVERED + (WORD_START if has_sequences else ""),
                normalization_rule_tsv=write_rules(options.normalization, Path(folder)),
                pad_id=0,
                eos_id=1,
                bos_id=2 if options.family.has_bos else -1,
                unk_id=options.family.unknown_id,
                user_defined_symbols=[
                    *options.family.user_defined,
                    *([NEWLINE_PIECE] if options.newline == PIECE else []),
                ],
                max_sentence_length=4 * MAX_SENTENCE_CHARS,  # bytes; longer ones would be skipped
                input_sentence_size=0,  # all of the sample
                num_threads=16,  # sums are per thread, so the number affects the model
                minloglevel=2,
            )
    except RuntimeError as cause:
        if "all_chars_count" in str(cause):
            raise _no_text(f"{len(sentences):,} sentences of only {WORD_START}") from cause
        raise _vocabulary_size_error(str(cause), options.vocab_size) or cause from cause
    return named_normalizer(model.getvalue(), model_name(options.normalization))


def _no_text(seen: str) -> DataError:
    return DataError(
        "no document has text",
        seen=seen,
        needed="documents with text",
        change="the INPUT arguments or --text-field",
    )


def _vocabulary_size_error(message: str, vocab_size: int) -> ConfigError | None:
    """Convert sentencepiece's error about an impossible vocabulary size."""
    if match := re.search(r"too high .* value <= (\d+)", message):
        problem, needed = "too little text for this vocabulary size", f"at most {match[1]}"
    elif match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        problem, needed = "the vocabulary is too small for the characters", f"at least {match[1]}"
    else:
        return None
    return ConfigError(problem, seen=vocab_size, needed=needed, change="--vocab-size")
