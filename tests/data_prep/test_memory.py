"""One very long document: memory is a small multiple of its size."""

import json
import subprocess
import sys
from pathlib import Path

from support.corpus import Corpus

# Prints the peak resident size of the worker process of a job, in kilobytes.
PROGRAM = """
import resource, sys
from bigbird_ds.cli.main import main
if __name__ == "__main__":
    assert main(sys.argv[1:]) == 0
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def write_document(path: Path, megabytes: int) -> int:
    sentence = "It is one of the many sentences of a very long document, number {}.\n"
    text = "".join(sentence.format(i) for i in range(megabytes * 1_000_000 // len(sentence)))
    path.write_text(json.dumps({"text": text}) + "\n")
    return len(text)


def test_a_document_of_22_megabytes_takes_a_few_bytes_a_character(
    corpus: Corpus, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    kilobytes, lengths = [], []
    for megabytes in (1, 22):
        path = tmp_path / f"{megabytes}.jsonl"
        lengths.append(write_document(path, megabytes))
        words = ["shard", path, "--tokenizer", corpus.tokenizer, "--out", tmp_path / path.stem]
        result = subprocess.run(
            [sys.executable, program, *words], capture_output=True, check=True, text=True
        )
        kilobytes.append(int(result.stdout))
    # Five bytes per character while a line is parsed (line, text, record, encoding). Later less:
    # the text, and the ids twice. Ids as Python ints would need ten and more.
    growth = 1000 * (kilobytes[1] - kilobytes[0]) / (lengths[1] - lengths[0])
    assert growth < 6
