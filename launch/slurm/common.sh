# Functions of the job scripts, which source this file. REPOSITORY and VENV are set.

# The id of the job; SLURM_JOB_ID of an array's last task is that of the whole array.
JOB=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
JOB=${JOB:-${SLURM_JOB_ID:-}}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# The virtual environment's commands come first. A relative VENV starts at the repository.
use_environment() {
    case $VENV in /*) ;; *) VENV=$REPOSITORY/$VENV ;; esac
    [ -x "$VENV/bin/python" ] || fail "no virtual environment at $VENV: set VENV"
    export PATH="$VENV/bin:$PATH"
}

# $1: a time such as 30, 45:00, 24:00:00 or 1-12, as sbatch takes it. Prints seconds; 0: no limit.
seconds() {
    awk -v text="$1" 'BEGIN {
        if (text !~ /^[0-9]/) { print 0; exit }
        days = split(text, day, "-") > 1
        n = split(days ? day[2] : text, part, ":")
        if (days) total = 86400 * day[1] + 3600 * part[1] + 60 * part[2] + part[3]
        else if (n == 3) total = 3600 * part[1] + 60 * part[2] + part[3]
        else total = 60 * part[1] + part[2]
        print total
    }'
}

# A time limit within the time of the signal would signal every life at its start.
require_time_for_signal() {
    local offset limit
    offset=$(sed -n 's/^#SBATCH --signal=.*@\([0-9]*\).*/\1/p' "$0")
    limit=$(squeue --noheader --jobs="$JOB" --format=%l 2>/dev/null)
    limit=$(seconds "$limit")
    [ "$limit" -eq 0 ] || [ "$limit" -gt "${offset:-0}" ] ||
        fail "the time limit is $limit s, and the signal to save comes $offset s before its end:" \
            "raise --time, or lower --signal"
}

# Preemption moves the end of the job, and signals only ranks that have started. So ranks that start
# later learn the end that holds now: they stop in time, and do not train until they are killed.
refresh_end_time() {
    local end
    end=$(squeue --noheader --jobs="$JOB" --format=%e 2>/dev/null)
    case $end in # N/A, and the like, without a time limit
        20*T*) SLURM_JOB_END_TIME=$(date --date="$end" +%s) && export SLURM_JOB_END_TIME ;;
    esac
}

# $@: a command. Runs it in the background and sets `code` to its exit code. bash runs a trap only
# between commands, so a signal interrupts `wait`, which is then repeated.
child=""
run_and_wait() {
    "$@" &
    child=$!
    while true; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
}

# A job that was cancelled or preempted is not RUNNING any more, though this shell still is: SLURM
# requeues a preempted one itself, and a cancelled one must stay cancelled.
requeue() {
    local state
    state=$(scontrol show job "$JOB" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p' | head -n 1)
    if [ "${state:-RUNNING}" != RUNNING ]; then
        echo "not requeued: the job is $state"
        return
    fi
    echo "requeueing the job: $*"
    scontrol requeue "$JOB" || echo "this job cannot be requeued, or SLURM has done it"
}
