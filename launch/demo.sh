#!/usr/bin/env bash
# The whole pipeline on a corpus that needs no download: descriptions of characters, from the Python
# interpreter's own database. Output goes to demo/; what already exists there is reused.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

step "1/6 documents: what the character database of the interpreter says, one per 32 characters"
mkdir -p demo
[ -s demo/documents.jsonl ] || run python -m data_prep.character_docs demo/documents.jsonl

step "2/6 tokenizer: a sentencepiece unigram model with BigBird's special pieces"
[ -s demo/tokenizer/tokenizer.json ] ||
    run bigbird-ds tokenizer demo/documents.jsonl --out demo/tokenizer --vocab-size 1500

step "3/6 shards: WebDataset tars, 5 % of the documents held out"
[ -s demo/shards/manifest.json ] ||
    run bigbird-ds shard demo/documents.jsonl --tokenizer demo/tokenizer --out demo/shards \
        --validation-fraction 0.05 --workers 2 --resume

step "4/6 pretraining: 2 CPU processes under deepspeed, ZeRO-1, masked words and next sentence"
# One thread per process: two processes share two cores.
[ -s demo/export/model.safetensors ] ||
    OMP_NUM_THREADS=1 DS_ACCELERATOR="${DS_ACCELERATOR:-cpu}" \
        run deepspeed --num_gpus 2 launch/pretrain.py configs/run/demo.yaml

step "5/6 export to Hub format, compared with transformers"
[ -s demo/export/model.safetensors ] || run bigbird-ds export demo/run demo/export
run bigbird-ds plot demo/run --out demo/curves.png

step "6/6 results"
run python -m launch.demo_report demo
