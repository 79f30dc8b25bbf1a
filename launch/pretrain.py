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
torchrun turns 2, 75 and 76 into 1.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from bigbird_ds import log
from bigbird_ds.cli.command_line import OVERRIDES_METAVAR, Parser
from bigbird_ds.errors import EXIT_FAILED, EXIT_USER_ERROR, RankFailure, UserError
from bigbird_ds.training.stopping import StopRequest, stop_on_signals, stop_with_launcher


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        "config, exit",
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
    from bigbird_ds.training.config.file import dump_run_config, load_run_config

    config = load_run_config(arguments.config, arguments.overrides)
    if arguments.print_config:
        from bigbird_ds.training.deepspeed.config import deepspeed_config
        from bigbird_ds.training.model_setup import model_config_without_tokenizer

        deepspeed_config(config, config.parallel.sequence)  # the minimum number of ranks
        model_config_without_tokenizer(config)
        print(dump_run_config(config), end="")
        return 0

    stop_with_launcher(request)
    from bigbird_ds.training import distributed

    hang_timeout = config.train.hang_timeout
    ranks = distributed.start(arguments.local_rank, hang_timeout)  # before others import DeepSpeed

    from bigbird_ds.cpu_memory import keep_freed_memory
    from bigbird_ds.cpu_products import fast_fp32_products
    from bigbird_ds.training.dry_run import dry_run
    from bigbird_ds.training.loop import train
    from bigbird_ds.training.replay import replay
    from bigbird_ds.training.setup import build_run
    from bigbird_ds.training.watchdog import watching

    keep_freed_memory(ranks.device)
    with fast_fp32_products(ranks.device), watching(ranks, hang_timeout):
        if arguments.dry_run:
            return dry_run(config, ranks, request)
        run = build_run(config, ranks, arguments.replay)
        if arguments.replay is not None:
            return replay(run, request, arguments.replay)
        return train(run, request)


def main() -> int:
    log.setup()
    try:
        with stop_on_signals() as request:
            return pretrain(parse_arguments(), request)
    except UserError as error:
        report(error)
        return EXIT_USER_ERROR
    except (FloatingPointError, RankFailure) as error:
        report(error)
        return EXIT_FAILED


def report(error: Exception) -> None:
    """Print the error on rank 0; other ranks, which raise the same, log one line 2 s later."""
    if log.rank == 0:
        with contextlib.suppress(OSError):  # a full disk must not change the exit code
            print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        time.sleep(2)
        log.logger.error("error: %s", str(error).partition("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
