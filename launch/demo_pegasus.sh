#!/usr/bin/env bash
# The whole pipeline for BigBirdPegasus, on a corpus that needs no download: descriptions of
# characters, from the Python interpreter's own database. Output goes to demo-pegasus/; what
# already exists there is reused.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

out=demo-pegasus

step "1/5 documents: what the character database of the interpreter says, one per 32 characters"
mkdir -p "$out"
[ -s "$out/documents.jsonl" ] || run python -m data_prep.character_docs "$out/documents.jsonl"

step "2/5 tokenizer with Pegasus' special pieces, and shards with 5 % of the documents held out"
[ -s "$out/tokenizer/spiece.model" ] ||
    run bigbird-ds tokenizer "$out/documents.jsonl" --out "$out/tokenizer" --vocab-size 1500 \
        --family pegasus
[ -s "$out/shards/manifest.json" ] ||
    run bigbird-ds shard "$out/documents.jsonl" --tokenizer "$out/tokenizer" --out "$out/shards" \
        --validation-fraction 0.05 --workers 2 --resume

step "3/5 pretraining: 2 CPU processes under deepspeed, ZeRO-1, gap sentences"
# One thread per process: two processes share two cores. Arguments of this script override run
# config keys, e.g. train.steps=200.
[ -s "$out/export/model.safetensors" ] ||
    OMP_NUM_THREADS=1 DS_ACCELERATOR="${DS_ACCELERATOR:-cpu}" \
        run deepspeed --num_gpus 2 launch/pretrain.py configs/run/demo_pegasus.yaml "$@"

step "4/5 export to Hub format, compared with transformers"
[ -s "$out/export/model.safetensors" ] || run bigbird-ds export "$out/run" "$out/export"

step "5/5 results"
run python -m launch.demo_pegasus_report "$out"
