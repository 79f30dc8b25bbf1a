#!/usr/bin/env bash
# The whole pipeline as SLURM jobs that wait for each other: tokenizer, shards, pretraining, export.
#   bash launch/slurm/chain.sh DOCUMENTS CONFIG WORK [key.sub=value ...]
# WORK gets tokenizer/, shards/, run/, export/ and logs/. A job whose predecessor fails is removed.
#
# ---- values of the site and the jobs ----
VENV=${VENV:-.venv}                             # relative to the repository
SITE=${SITE:-}                                  # options of every job: --partition, --account, ...
TOKENIZER=${TOKENIZER:---vocab-size 32000}      # options of `bigbird-ds tokenizer`
SHARD=${SHARD:---validation-fraction 0.001}     # options of `bigbird-ds shard`
PARTS=${PARTS:-16}                              # tasks of the shard array
ONE_CPU=${ONE_CPU:---cpus-per-task=8 --time=08:00:00 --mem=32G} # tokenizer and export
SHARD_JOB=${SHARD_JOB:-}                        # more options of sbatch for the shard array
PRETRAIN_JOB=${PRETRAIN_JOB:-}                  # and for the pretraining: --nodes, --time, ...
# ---- end of the values ----
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,4s/^# *//p' "$0" >&2
    exit 2
fi
REPOSITORY=$(cd "$(dirname "$0")/../.." && pwd)
. "$REPOSITORY/launch/slurm/common.sh"
use_environment
documents=$(realpath "$1") config=$(realpath "$2") work=$(realpath -m "$3")
shift 3
mkdir -p "$work/logs"
export VENV PARTS

# $1: name of the job, $2: id of the job that has to succeed before, or nothing. The rest: sbatch's.
# The options are words in one variable each, so they are not quoted.
submit() {
    local name=$1 after=$2
    shift 2
    # shellcheck disable=SC2086
    sbatch --parsable --job-name="$name" --output="$work/logs/$name-%A.%a.log" $SITE \
        --kill-on-invalid-dep=yes ${after:+--dependency=afterok:$after} "$@"
}

tokenizer="" shards="" pretrain=""
# shellcheck disable=SC2086
trap '[ -z "$tokenizer" ] || scancel $tokenizer $shards $pretrain' ERR # a job was refused
# shellcheck disable=SC2086
{
    tokenizer=$(submit tokenizer "" $ONE_CPU --wrap "$(printf '%q ' \
        bigbird-ds tokenizer "$documents" --out "$work/tokenizer" $TOKENIZER)")
    shards=$(submit shards "$tokenizer" --array="0-$((PARTS - 1))" $SHARD_JOB \
        "$REPOSITORY/launch/slurm/shard.sbatch" "$documents" --tokenizer "$work/tokenizer" \
        --out "$work/shards" $SHARD)
    pretrain=$(submit pretrain "$shards" $PRETRAIN_JOB "$REPOSITORY/launch/slurm/pretrain.sbatch" \
        "$config" "data.train=$work/shards" "data.tokenizer=$work/tokenizer" "output=$work/run" "$@")
    export_job=$(submit export "$pretrain" $ONE_CPU --wrap "$(printf '%q ' \
        bigbird-ds export "$work/run" "$work/export")")
}
printf 'tokenizer %s\nshards %s\npretrain %s\nexport %s\nlogs in %s\n' \
    "$tokenizer" "$shards" "$pretrain" "$export_job" "$work/logs"
