"""Windows of two bacterial strains in which every piece lies at one distance from its homologue.

Homologous means: at least eight words of 24 bases of the piece (seeds, of which the other strain's
index holds every fourth) occur in the other strain, on either strand, at places that agree on where
the piece begins. Nothing is aligned base by base: a base inserted in a piece shifts its rest.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.inputs import find_inputs
from data_prep.pieces import Piece
from data_prep.readers import read_piece
from data_prep.records import Document, Fields

OTHER = 4  # the code of a letter that is not A, C, G or T, and of the border between two records
_WORD, _STEP, _FEWEST_SEEDS = 24, 4, 8
_HELD = (0.4, 0.5)  # of the first strain of each species: what is tested on
_FEWEST_HOMOLOGOUS = 0.75  # of the pieces of a window
_CODES = np.full(256, OTHER, np.uint8)
_CODES[list(b"ACGT")] = range(4)


@dataclass(frozen=True, eq=False)
class Strain:
    """A genome and the index of its seeds.

    Attributes:
        bases: ``(n,)`` uint8, 0 to 3 or ``OTHER``.
        seeds: int64, sorted: the words at every fourth place that occur at one of these only.
        places: int64, where each begins.
        held: int64, how many of the words before every fourth place are those of a held-out range.
        test_range: the places that are held out; None: not a strain that is tested on.
    """

    name: str
    species: str
    bases: np.ndarray
    seeds: np.ndarray
    places: np.ndarray
    held: np.ndarray
    test_range: tuple[int, int] | None

    def homologue(self, piece: np.ndarray) -> tuple[int, np.ndarray] | None:
        """Where the homologue of ``piece`` begins, and its bases in the direction of ``piece``."""
        found = max((self._matches(piece, flip) for flip in (False, True)), key=lambda m: m[0])
        seeds, start, flip = found
        if seeds < _FEWEST_SEEDS or not 0 <= start <= len(self.bases) - len(piece):
            return None
        bases = self.bases[start : start + len(piece)]
        return None if (bases == OTHER).any() else (start, other_strand(bases) if flip else bases)

    def _matches(self, piece: np.ndarray, flip: bool) -> tuple[int, int, bool]:
        """The most seeds that agree on a beginning, the beginning, and ``flip``."""
        wanted = words(other_strand(piece) if flip else piece)
        at = np.minimum(np.searchsorted(self.seeds, wanted), len(self.seeds) - 1)
        hits = np.flatnonzero(self.seeds[at] == wanted)
        if not len(hits):
            return 0, 0, flip
        starts, counts = np.unique(self.places[at[hits]] - hits, return_counts=True)
        return int(counts.max()), int(starts[counts.argmax()]), flip

    def is_held_out(self, start: int, stop: int) -> bool:
        """Whether more than 1 % of the words of a range are those of a range that is tested on."""
        start, stop = start // _STEP, min(stop // _STEP, len(self.held) - 1)
        return bool(self.held[stop] - self.held[start] > 0.01 * (stop - start))


@dataclass(frozen=True)
class Window:
    """The bases ``(pieces, size)`` of a strain and of another, and which pieces are homologous."""

    species: str
    masked: np.ndarray
    other: np.ndarray
    is_homologous: np.ndarray


def words(bases: np.ndarray) -> np.ndarray:
    """The words of 24 bases as int64, one for each place where one begins; -1 with ``OTHER``."""
    count = len(bases) - _WORD + 1
    code, is_bad = np.zeros(count, np.int64), np.zeros(count, bool)
    for offset in range(_WORD):
        part = bases[offset : offset + count]
        code = 4 * code + part
        is_bad |= part == OTHER
    code[is_bad] = -1
    return code


def other_strand(bases: np.ndarray) -> np.ndarray:
    """The reverse complement of bases without ``OTHER``."""
    return 3 - bases[::-1]


def read_strains(folder: Path) -> list[Strain]:
    """The strains of ``SPECIES/references/STRAIN.fasta.gz``, at least two of each species."""
    by_species: dict[str, list[tuple[str, np.ndarray]]] = defaultdict(list)
    for path in sorted(folder.glob("*/references/*.fasta.gz")):
        by_species[path.parts[-3]].append((path.name.split(".")[0], _bases(path)))
    strains = []
    for species, genomes in by_species.items():
        first = genomes[0][1]
        start, stop = (int(share * len(first)) for share in _HELD)
        tested = first[start:stop]
        held = np.sort(np.concatenate([words(tested), words(_other_strand_of_all(tested))]))
        for number, (name, bases) in enumerate(genomes):
            every = words(bases)[::_STEP]
            seeds, index, counts = np.unique(every, return_index=True, return_counts=True)
            once = (counts == 1) & (seeds >= 0)
            at = np.minimum(np.searchsorted(held, every), len(held) - 1)
            is_held = (held[at] == every) & (every >= 0)
            strains.append(
                Strain(
                    name=name,
                    species=species,
                    bases=bases,
                    seeds=seeds[once],
                    places=index[once] * _STEP,
                    held=np.concatenate([[0], np.cumsum(is_held)]),
                    test_range=(start, stop) if number == 0 else None,
                )
            )
    return strains


def _bases(path: Path) -> np.ndarray:
    """The records of a file, one after the other."""
    (file,) = find_inputs([str(path)])
    parts = []
    for record in read_piece(
        Piece(file, 0, file.num_bytes, file.num_bytes), Fields("text", upper_case=True)
    ):
        assert isinstance(record, Document), record
        parts += [
            _CODES[np.frombuffer(record.text.encode(), np.uint8)],
            np.array([OTHER], np.uint8),
        ]
    return np.concatenate(parts)


def _other_strand_of_all(bases: np.ndarray) -> np.ndarray:
    return np.where(bases[::-1] == OTHER, OTHER, 3 - bases[::-1]).astype(np.uint8)


def draw_window(
    strains: Sequence[Strain], generator: np.random.Generator, pieces: int, size: int, test: bool
) -> tuple[Window, Window]:
    """A window with the homologues of another strain, and with a range of that strain instead.

    Args:
        pieces, size: of each strain, and the bases of a piece.
        test: from the held-out ranges; otherwise from what has nothing of them.

    Returns:
        Both have the same masked strain and the same ``is_homologous``. Where a piece has no
        homologue, both have the unrelated range.
    """
    starts_from = [strain for strain in strains if strain.test_range or not test]
    while True:
        strain = starts_from[generator.integers(len(starts_from))]
        begin, end = strain.test_range if test else (0, len(strain.bases))
        start = int(generator.integers(begin, end - pieces * size))
        masked = strain.bases[start : start + pieces * size]
        if (masked == OTHER).any() or (not test and strain.is_held_out(start, start + masked.size)):
            continue
        others = [s for s in strains if s.species == strain.species and s is not strain]
        other = others[generator.integers(len(others))]
        masked = masked.reshape(pieces, size)
        found = [other.homologue(piece) for piece in masked]
        is_homologous = np.array([match is not None for match in found])
        if is_homologous.mean() < _FEWEST_HOMOLOGOUS:
            continue
        places = [match[0] for match in found if match is not None]
        unrelated = _unrelated(other, generator, pieces, size, places, test)
        related = unrelated.copy()
        for row, match in zip(related, found, strict=True):
            if match is not None:
                row[:] = match[1]
        make = functools.partial(Window, strain.species, masked, is_homologous=is_homologous)
        return make(other=related), make(other=unrelated)


def _unrelated(
    strain: Strain,
    generator: np.random.Generator,
    pieces: int,
    size: int,
    places: Sequence[int],
    test: bool,
) -> np.ndarray:
    """``(pieces, size)``: a range further from all ``places`` than it is long."""
    length = pieces * size
    while True:
        start = int(generator.integers(len(strain.bases) - length))
        bases = strain.bases[start : start + length]
        near = np.abs(np.array(places) - start).min() < 2 * length
        held = not test and strain.is_held_out(start, start + length)
        if not (near or held or (bases == OTHER).any()):
            return bases.reshape(pieces, size)
