"""What a command and everything that it starts cost: processor time, peak memory, wall time."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
EVERY = 0.05
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
LIBC = ctypes.CDLL(None)


class Failed(Exception):
    """Of one peer; what it said stands in the text."""


def adopt_orphans() -> None:
    """A process whose parent has ended becomes a child of this one, which can then ask what it cost."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(command, **options) -> subprocess.Popen:
    """In a session of its own, which ends with this program, however that ends."""
    return subprocess.Popen(command, start_new_session=True, preexec_fn=end_with_parent, **options)


@dataclass
class Cost:
    cpu: float
    wall: float
    peak_mb: float
    lines: list = field(default_factory=list)


def run(command, log: str, env=None) -> Cost:
    """`command` from its start to the end of its last process. Fails unless it says that all went well."""
    began = time.monotonic()
    with open(log, "wb") as errors:
        root = spawn(command, env=env, stdout=subprocess.PIPE, stderr=errors)
        sampler = Sampler(root.pid)
        try:
            lines = root.stdout.read().decode().splitlines()
            _, status, usage = os.wait4(root.pid, 0)
            root.returncode = os.waitstatus_to_exitcode(status)
            cpu = usage.ru_utime + usage.ru_stime + reap(root.pid)
        finally:
            sampler.end()
            end(root)
    if root.returncode != 0:
        with open(log, errors="replace") as file:
            raise Failed(f"{command[0]} ended with {root.returncode}: {file.read()[-2000:]}")
    return Cost(cpu, time.monotonic() - began, sampler.peak / 1e6, lines)


def end(process: subprocess.Popen) -> None:
    """And all of its session."""
    for pid in session(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if process.returncode is None:
        process.wait()


def reap(root: int) -> float:
    """Processor time of those of the session that outlived the one that started them, when they have ended."""
    cpu = 0.0
    while left := session(root):
        for pid in left:
            try:
                _, _, usage = os.wait4(pid, 0)
                cpu += usage.ru_utime + usage.ru_stime
            except ChildProcessError:
                time.sleep(EVERY)  # Its parent lives.
    return cpu


def session(root: int) -> list:
    """The processes of a session."""
    return [pid for pid, fields in processes() if int(fields[3]) == root]


def processes():
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    yield int(name), file.read().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                pass


class Sampler(threading.Thread):
    """The most memory that a session has had at once. Pages that its processes share count for each."""

    def __init__(self, root: int):
        super().__init__(daemon=True)
        self.root, self.peak, self.ended = root, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(EVERY):
            self.peak = max(self.peak, sum(int(f[21]) * PAGE for _, f in processes() if int(f[3]) == self.root))

    def end(self) -> None:
        self.ended.set()
        self.join()
