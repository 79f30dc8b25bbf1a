"""A SLURM of two nodes on one machine, from Debian's packages, under one folder.

Each node is a ``slurmd`` with its own port, host name and /etc/hosts. Only loopback is used.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.processes import REPOSITORY, environment

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "unshare")
NODES = ("node1", "node2")
_CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
FirstJobId={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
ReturnToService=2
KillWait=30
SlurmdTimeout=10
MinJobAge=600
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES OverSubscribe=NO
PartitionName=spot Nodes=ALL OverSubscribe=EXCLUSIVE PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL OverSubscribe=EXCLUSIVE PriorityTier=9 PreemptMode=OFF
"""
_NODE = "NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs=8 Gres=gpu:2\n"


def why_not() -> str | None:
    """Why this machine cannot have a SLURM of its own; None if it can."""
    if os.geteuid() != 0:
        return "needs root, to start SLURM's daemons"
    path = f"{environment()['PATH']}{os.pathsep}/usr/sbin"
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    return f"needs {', '.join(missing)}: Debian's slurm-wlm and munge" if missing else None


@dataclass
class Cluster:
    """The running daemons, and the commands of a user.

    The ids of jobs begin at ``port``: the ports of their ranks follow from them.
    """

    folder: Path
    port: int
    daemons: dict[str, subprocess.Popen[bytes]]

    def command(self, *words: Any, cwd: Path = REPOSITORY, **extra: str) -> str:
        """What a client command of SLURM prints."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env=self._environment(**extra),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, *words: Any, **extra: Any) -> str:
        """``sbatch`` with ``words``; the id of the job."""
        return self.command("sbatch", "--parsable", *words, **extra)

    def show(self, job: str) -> dict[str, str]:
        """SLURM's record of a job."""
        words = self.command("scontrol", "show", "job", "--oneliner", job).split("\n")[0].split()
        return dict(word.partition("=")[::2] for word in words)

    def wait(self, job: str, *states: str, timeout_s: float = 600) -> dict[str, str]:
        """The record of a job once it is in one of ``states``, or is over."""

        def is_there() -> bool:
            state = self.show(job)["JobState"]
            assert not states or state in states or state not in _ENDED, self.logs()
            return state in (states or _ENDED)

        self._until(is_there, f"{job} {states}", timeout_s)
        return self.show(job)

    def wait_for_text(self, log: Path, text: str, times: int = 1, timeout_s: float = 600) -> None:
        """Wait until a log contains ``text``."""
        read: Callable[[], str] = lambda: log.read_text(errors="replace") if log.exists() else ""  # noqa: E731
        self._until(lambda: read().count(text) >= times, f"{text!r} in {log}", timeout_s, read)

    def _until(
        self, holds: Callable[[], bool], what: str, timeout_s: float, more: Callable[[], str] = str
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"not {what}\n{more()}"
            time.sleep(0.3)

    def logs(self) -> str:
        """SLURM's record of all jobs."""
        return self.command("scontrol", "show", "job")

    def story(self, job: str) -> str:
        """What the controller did with a job, and the job's record."""
        log = (self.folder / "slurmctld.log").read_text(errors="replace").split("\n")
        lines = [line for line in log if f"JobId={job}" in line]
        return "\n".join([*lines, self.command("scontrol", "show", "job", job)])

    def start_node(self, name: str) -> None:
        hosts = self.folder / "hosts"
        script = f"mount --bind {hosts} /etc/hosts && hostname {name} && exec slurmd -D -N {name}"
        self._start(name, "unshare", "--mount", "--uts", "sh", "-c", script)

    def _environment(self, **extra: str) -> dict[str, str]:
        own = environment(SLURM_CONF=str(self.folder / "slurm.conf"), PYTHONPATH=str(REPOSITORY))
        own["PATH"] += f"{os.pathsep}/usr/sbin"
        return own | extra

    def _start(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as stream:
            self.daemons[name] = subprocess.Popen(
                words, env=self._environment(), stdout=stream, stderr=subprocess.STDOUT
            )

    def _write_settings(self) -> None:
        text = _CONF.format(folder=self.folder, port=self.port)
        for number, name in enumerate(NODES, 1):
            text += _NODE.format(name=name, port=self.port + number)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        names = "".join(f"127.0.0.1 {name}\n" for name in NODES)
        (self.folder / "hosts").write_text(Path("/etc/hosts").read_text() + names)
        (self.folder / "key").write_bytes(os.urandom(128))
        (self.folder / "key").chmod(0o400)

    def start(self) -> None:
        self._write_settings()
        files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._start("munged", "munged", "--foreground", *options)
        socket_file = self.folder / "munge.socket"
        self._until(socket_file.exists, "munged", 20, (self.folder / "munged.out").read_text)
        self._start("slurmctld", "slurmctld", "-D")
        for name in NODES:
            self.start_node(name)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        def are_idle() -> bool:
            words = ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T"]
            with contextlib.suppress(AssertionError):
                return self.command(*words).split("\n") == [f"{name} idle" for name in NODES]
            return False

        self._until(are_idle, "idle nodes", 60)

    def stop(self) -> None:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.command("scancel", "--full", "--signal=KILL", "--user=root")
            self.command("scancel", "--user=root")
            is_empty: Callable[[], bool] = lambda: not self.command("squeue", "--noheader")  # noqa: E731
            self._until(is_empty, "an empty queue", 20)
        for name in reversed(self.daemons):
            daemon = self.daemons[name]
            daemon.terminate()
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


@contextlib.contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """A cluster whose two nodes are idle; everything ends with the context."""
    # munged refuses a socket in pytest's folders, which only their owner may enter.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir(mode=0o700)
        for node in NODES:
            (folder / f"spool-{node}").mkdir()
        cluster = Cluster(folder, _three_free_ports(), {})
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def _three_free_ports() -> int:
    for first in range(17000 + os.getpid() % 1000, 19000):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")
