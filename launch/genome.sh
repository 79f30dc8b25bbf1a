#!/usr/bin/env bash
# Pretraining on bacterial genomes, from FASTA to a trained run. Output goes to work/genome; what
# exists there is reused. The genomes are those of Debian's package ragout-examples; without apt-get,
# put .fasta files into work/genome/fasta yourself.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
root=work/genome

step "1/4 genomes: 16 strains of four bacteria"
if [ ! -d $root/fasta ]; then
    mkdir -p $root/package
    (cd $root/package && apt-get download ragout-examples)
    dpkg-deb -x $root/package/ragout-examples_*.deb $root/package/files
    mkdir $root/fasta.part
    cp $root/package/files/usr/share/doc/ragout/examples/*/references/*.fasta.gz $root/fasta.part/
    mv $root/fasta.part $root/fasta
fi

step "2/4 tokenizer: BPE of 4,096 pieces on a sample of spans of 600 bases"
[ -s $root/tokenizer/tokenizer.json ] ||
    run bigbird-ds tokenizer $root/fasta --out $root/tokenizer --model bpe --vocab-size 4096 \
        --case upper --max-sentences 20000

step "3/4 shards: a document per record"
[ -s $root/shards/manifest.json ] ||
    run bigbird-ds shard $root/fasta --tokenizer $root/tokenizer --out $root/shards \
        --case upper --n-runs cut --validation-fraction 0.15 --unit-size 4M --workers 2 --resume

step "4/4 pretraining: masked bases, either strand"
run python launch/pretrain.py configs/run/genome_cpu.yaml "$@"
