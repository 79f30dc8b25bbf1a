"""Pretrain a model: ``deepspeed launch/pretrain.py CONFIG.yaml [key.sub=value ...]``.

The same file runs under every launcher, or without one on a single device:

    python launch/pretrain.py configs/run/tiny_cpu.yaml
    deepspeed --num_gpus 8 launch/pretrain.py configs/run/bigbird_base.yaml
    torchrun --nproc_per_node 8 launch/pretrain.py configs/run/bigbird_base.yaml
    srun python launch/pretrain.py configs/run/bigbird_base.yaml

With ``--dry-run`` every phase runs once, in a folder that is removed.
With ``--replay STEP`` the same command computes a step of the run again and writes nothing.
Run the same command again to resume after a stop; the number of processes may change.

Exit codes: 0 done; 2 user error in the command, config or data; 75 stopped on request (by a signal,
or because the launcher exited) and saved; 76 hung (see ``train.hang_timeout``); 1 anything else.
torchrun turns 2, 75 and 76 into 1. It restarts ranks on any code but 0, so where it has restarts
left (``--max-restarts``) a stop on request exits with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import time
import traceback
from pathlib import Path

from bigbird_ds import log
from bigbird_ds.cli.command_line import OVERRIDES_METAVAR, Parser, package_version
from bigbird_ds.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_REQUEUE,
    EXIT_USER_ERROR,
    RankFailure,
    UserError,
)
from bigbird_ds.training.ranks.launchers import set_rank_variables
from bigbird_ds.training.ranks.stopping import StopRequest, stop_on_signals, stop_with_launcher


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"bigbird-ds {package_version()}")
    parser.add_argument("config", help="run config, a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar=OVERRIDES_METAVAR, help="override values of the file"
    )
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=None, help="set by launchers"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="validate everything that needs neither data nor tokenizer, print the resolved "
        "config and where each value comes from, exit",
    )
    parser.add_argument(
        "--replay",
        type=int,
        metavar="STEP",
        help="compute this step of the run in `output` again, from the last checkpoint before it; "
        "print its loss, gradient norm, samples and where it is not finite; write nothing",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run one step, save, evaluation and resume at the real sizes in a temporary folder; "
        "print memory beside the plan's, seconds and bandwidth",
    )
    arguments = parser.parse_intermixed_args()
    if arguments.replay is not None and arguments.dry_run:
        parser.error("--replay and --dry-run exclude each other")
    if arguments.replay is not None and arguments.replay < 1:
        parser.error("--replay needs a step, 1 or more")
    return arguments


def pretrain(arguments: argparse.Namespace, request: StopRequest) -> int:
    if not arguments.print_config:
        set_rank_variables(arguments.local_rank)
        log.set_rank(int(os.environ["RANK"]))
    from bigbird_ds.training.config.file import dump_run_config, load_with_origins

    config, origins = load_with_origins(arguments.config, arguments.overrides)
    if arguments.print_config:
        from bigbird_ds.training.deepspeed.config import deepspeed_config
        from bigbird_ds.training.model_setup import model_config_without_tokenizer

        deepspeed_config(config, config.parallel.sequence)  # the minimum number of ranks
        model_config_without_tokenizer(config)
        print(dump_run_config(config, origins), end="")
        return 0

    stop_with_launcher(request)
    from bigbird_ds.hub.checkpoints import LOGS_NAME
    from bigbird_ds.training.ranks import distributed
    from bigbird_ds.training.ranks.rendezvous import StoppedWhileWaiting

    hang_timeout = config.train.hang_timeout
    try:  # before others import DeepSpeed
        logs = Path(config.output) / LOGS_NAME
        ranks = distributed.start(arguments.local_rank, hang_timeout, lambda: bool(request), logs)
    except StoppedWhileWaiting:
        return EXIT_REQUEUE

    from bigbird_ds.cpu_memory import keep_freed_memory
    from bigbird_ds.cpu_products import fast_fp32_products
    from bigbird_ds.training.dry_run import dry_run
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.out_of_memory import saying_what_to_lower
    from bigbird_ds.training.ranks.watchdog import watching
    from bigbird_ds.training.replay import replay
    from bigbird_ds.training.setup import build_run

    keep_freed_memory(ranks.device)
    with (
        fast_fp32_products(ranks.device),
        watching(ranks, hang_timeout),
        saying_what_to_lower(config, ranks.world_size),
    ):
        if arguments.dry_run:
            return dry_run(config, ranks, request)
        run = build_run(config, ranks, arguments.replay, origins=origins)
        if arguments.replay is not None:
            return replay(run, request, arguments.replay)
        return train(run, request)


def main() -> int:
    log.setup()
    try:
        with stop_on_signals() as request:
            return code_for_launcher(pretrain(parse_arguments(), request))
    except UserError as error:
        report(error)
        return EXIT_USER_ERROR
    except (FloatingPointError, RankFailure) as error:
        report(error)
        return EXIT_FAILED
    except Exception:
        log.to_file_only(traceback.format_exc())  # stderr gets it from Python
        raise


def code_for_launcher(code: int) -> int:
    """0 instead of 75 where ``torchrun`` would restart the ranks that were asked to stop."""
    restarts_left = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) - int(
        os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    )
    if code != EXIT_REQUEUE or restarts_left <= 0:
        return code
    log.logger.info("exit code 0, not 75: torchrun --max-restarts would start the ranks again")
    return EXIT_DONE


def report(error: Exception) -> None:
    """Print the error on rank 0. Others, which raise the same, log a line 2 s later, if any.

    Before the ranks have met, that is the first rank of each other host, and only if rank 0 waits
    at its port: otherwise rank 0 has the same error. If the ranks do not meet, the first rank of
    each host prints the error.
    """
    if log.rank == 0:
        log.to_file_only(f"error: {error}")
        with contextlib.suppress(OSError):  # a full disk must not change the exit code
            print(f"error: {error}", file=sys.stderr, flush=True)
        return
    if isinstance(error, RankFailure) and not has_met():  # rank 0 may never have come
        if os.environ.get("LOCAL_RANK") == "0":
            log.logger.error("error on %s: %s", socket.gethostname(), error)
        return
    time.sleep(2)
    if has_met() or (os.environ.get("LOCAL_RANK") == "0" and rank_0_waits()):
        log.logger.error("error on %s: %s", socket.gethostname(), str(error).partition("\n")[0])


def has_met() -> bool:
    """Whether this process has joined the others; without importing torch."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def rank_0_waits(patience_s: float = 20.0) -> bool:
    """Whether rank 0 listens at its port, or does so within the time that its imports take."""
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(address, timeout=5).close()
            return True
        time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main())
