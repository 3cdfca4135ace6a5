"""First process of the sandbox: builds the walls, then starts two processes for each job, test runner and program.

    main          namespaces (user, mount, net, ipc, uts, pid, cgroup); a read-only root with the standard library and
                  shared libraries; no /proc, no /etc, no home, no network interface that is up
      _keep       process 1 in there: starts a test runner, waits for its end, starts the next
        _judge    test runner: a mount namespace with a private folder of limited size; reads the job, runs the tests
          _program  the candidate: process 1 of a pid namespace, so it sees no other process and its threads die with it

The candidate is forked before the test runner reads the job, so the tests were never in its memory. Both lose every
capability and get limits and a seccomp filter that refuses new processes, sockets, signals and most system calls of
administration. Level `weak` has no namespaces; Landlock, where the kernel has it, limits file access to the standard
library and one folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, NoReturn

from synth.sandbox import candidate_runner, landlock, seccomp, test_runner
from synth.sandbox.ipc import Broken, Channel, Late

__all__ = ["MAX_OUTPUT", "main"]

MAX_OUTPUT = 1 << 20  # characters of stdout and stderr each that are kept; past FLOOD bytes the program is stopped
FLOOD = 64 << 20
DISK = 64 << 20  # bytes, of the private folder; and of one file
THREADS = 64
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_DEVICES = ("null", "zero", "urandom", "random", "full")
_UID = 65534
_ROOM = "/sandbox"  # the private folder of a job
_libc = ctypes.CDLL(None, use_errno=True)


def main(fd: int, parent: int, weak: bool, out: int | None = None) -> NoReturn:
    """Run jobs from the socket until the caller is gone. What fails before the first job is reported on stderr.

    In a container jobs come on stdin and verdicts go to stdout: ``fd`` and ``out`` are then 0 and 1.
    """
    _die_with(parent)
    if out is not None:
        fd, out = os.dup(fd), os.dup(out)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
    out = fd if out is None else out
    _close_others(fd, out)
    if os.getpid() != os.getsid(0):
        os.setsid()
    _libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    if weak:
        sys.path[:] = _library()
        _keep(fd, out, weak)
    _enter()
    keeper = os.fork()
    if keeper == 0:
        _die_with(0)
        _keep(fd, out, weak)
    os.close(fd)
    os.waitpid(keeper, 0)
    os._exit(0)


def _close_others(*kept: int) -> None:
    """Close every descriptor but stdin, stdout, stderr and those to keep, however high its number is."""
    for low, high in itertools.pairwise(sorted({2, *kept, 1 << 31})):
        if _libc.syscall(436, low + 1, high - 1, 0):  # close_range, since Linux 5.9
            os.closerange(low + 1, min(high, os.sysconf("SC_OPEN_MAX")))


def _keep(fd: int, out: int, weak: bool) -> NoReturn:
    Channel(out).send("ready")
    while True:
        room = tempfile.mkdtemp(prefix="sandbox-") if weak else _ROOM
        judge = os.fork()
        if judge == 0:
            _judge(fd, out, os.getppid(), weak, room)
        status = 1
        with contextlib.suppress(ChildProcessError):
            while True:  # until nothing of the job is alive
                pid, ended = os.wait()
                status = ended if pid == judge else status
        if weak:
            shutil.rmtree(room, ignore_errors=True)
        if status:
            os._exit(1)


# --- walls -------------------------------------------------------------------------------------------------------


def _die_with(parent: int) -> None:
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")


def _read_only(path: str, *, below: bool = True) -> None:
    """The mount and, with ``below``, all mounts in it: mount_setattr, since Linux 5.12."""
    attributes = (ctypes.c_uint64 * 4)(1 | 2 | 4, 0, 0, 0)  # read-only, no set-uid, no devices
    _check(_libc.syscall(442, -100, path.encode(), 0x8000 if below else 0, attributes, 32), f"mount_setattr {path}")


def _library() -> list[str]:
    """The folders of the standard library, this interpreter's."""
    pure = os.path.dirname(os.path.realpath(os.__file__))
    return [pure, os.path.join(pure, "lib-dynload")]


def _enter() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_NEWUSER | _NEWNS | _NEWNET | _NEWIPC | _NEWUTS | _NEWPID | _NEWCGROUP), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{_UID} {uid} 1"), ("gid_map", f"{_UID} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    library = _library()
    shared = [
        path for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo") if os.path.isdir(path)
    ]
    shared = list(dict.fromkeys([*shared, os.path.join(sys.base_prefix, "lib"), library[0]]))
    opened = {path: os.open(path, os.O_PATH) for path in shared}  # any of them may be below the mount to come
    links = {path: os.readlink(path) for path in shared if os.path.islink(path)}
    _mount("none", "/", None, _REC | _PRIVATE)
    root = "/tmp"
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for path in shared:
        if path in links:
            os.symlink(links[path], root + path)
        elif not os.path.isdir(root + path):
            os.makedirs(root + path)
            _mount(f"/proc/self/fd/{opened[path]}", root + path, None, _BIND | _REC)
            _read_only(root + path)
    os.makedirs(root + "/dev")
    for name in _DEVICES:
        with open(f"{root}/dev/{name}", "w"):
            pass
        _mount(f"/dev/{name}", f"{root}/dev/{name}", None, _BIND)
    for name in (_ROOM, "/.old"):
        os.mkdir(root + name)
    if not os.path.exists(root + "/tmp"):  # else the interpreter lives below it
        os.symlink(_ROOM, root + "/tmp")
    for name in ("site-packages", "dist-packages"):
        if os.path.isdir(os.path.join(root + library[0], name)):
            _mount("tmpfs", os.path.join(root + library[0], name), "tmpfs", _RDONLY, "size=4k")
    for one in opened.values():
        os.close(one)
    os.chdir(root)
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    _check(_libc.syscall(number, b".", b".old"), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/.old", 2), "umount")
    os.rmdir("/.old")
    _read_only("/", below=False)
    sys.path[:] = library


def _drop(memory_mb: int, cpu_s: int, threads: int) -> None:
    """Set the limits, drop all capabilities and install the seccomp filter; none of it can be undone."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_mb << 20), (resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_FSIZE, DISK),
        (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, threads),
        (resource.RLIMIT_MEMLOCK, 0), (resource.RLIMIT_STACK, 64 << 20),
    ):  # fmt: skip
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    for capability in range(41):
        _libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused where there is none to drop
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    seccomp.install()


# --- one job -----------------------------------------------------------------------------------------------------


def _judge(fd: int, reply: int, parent: int, weak: bool, room: str) -> NoReturn:
    _die_with(parent)
    _libc.prctl(4, 0, 0, 0, 0)  # not dumpable: nobody reads or traces this process
    if not weak:
        _check(_libc.unshare(_NEWNS | _NEWPID), "unshare")
        _mount("tmpfs", _ROOM, "tmpfs", _NOSUID | _NODEV | _NOEXEC, f"size={DISK},nr_inodes=4096,mode=700")
    ours, theirs = _socketpair()
    out, err, given = os.pipe(), os.pipe(), os.memfd_create("stdin")
    program = os.fork()
    if program == 0:
        os.dup2(given, 0)
        os.dup2(out[1], 1)
        os.dup2(err[1], 2)
        os.dup2(theirs, 3)
        _close_others(3)
        _program(weak, room)
    for one in (theirs, out[1], err[1]):
        os.close(one)
    job = Channel(fd).receive()
    run = _Run(ours, out[0], err[0], program, time.monotonic() + job["timeout_s"])
    os.pwrite(given, job["stdin"].encode("utf-8", "surrogatepass"), 0)
    if weak:
        _landlock(room)
    _drop(job["memory_mb"] + 256, int(job["timeout_s"] * 2) + 10, THREADS)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (what tests print is nobody's)
    os.chdir(room)
    Channel(reply).send(run.verdict(job) | {"id": job["id"]})
    os._exit(0)


def _socketpair() -> tuple[int, int]:
    import socket

    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _program(weak: bool, room: str) -> NoReturn:
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(4, 0, 0, 0, 0)
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8", errors="surrogateescape"
    )
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(one, "w", closefd=False)), "utf-8", "backslashreplace")
        for one in (1, 2)
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(HOME=room, TMPDIR=room, PATH="/usr/bin:/bin", LANG="C.UTF-8")
    os.chdir(room)

    def begin(first: list[Any]) -> None:
        if weak:
            _landlock(room)
        _drop(first[2], first[3], THREADS)

    with contextlib.suppress(Broken):
        candidate_runner.serve(3, begin)
    os._exit(1)


def _landlock(room: str) -> None:
    landlock.restrict(room, [*_library(), "/lib", "/lib64", "/usr/lib", sys.base_prefix + "/lib"])


class _Run:
    """One run of a program: its channel, its output, its end."""

    def __init__(self, fd: int, out: int, err: int, program: int, deadline: float) -> None:
        self.fd, self.program, self.deadline = fd, program, deadline
        self.text = {out: bytearray(), err: bytearray()}
        self._open, self._flood = [out, err], 0
        self._out, self._err = out, err

    def verdict(self, job: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        found, reason = self._tried(job)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with contextlib.suppress(Late, Broken):
            while found in ("correct", "wrong") and self._open and self._wait([], time.monotonic()):
                pass  # what is in the pipes already
        if found == "late" or (time.monotonic() > self.deadline and found != "correct"):
            found, reason = "timeout", f"not done within {job['timeout_s']:g} s"
        texts = [bytes(self.text[one]).decode("utf-8", "replace") for one in (self._out, self._err)]
        seconds = time.monotonic() - began
        return {"verdict": found, "reason": reason, "stdout": texts[0], "stderr": texts[1], "seconds": seconds}

    def _tried(self, job: dict[str, Any]) -> tuple[str, str | None]:
        channel = Channel(self.fd, self._watch)
        cpu_s = int(job["timeout_s"]) + 2
        signal.signal(signal.SIGALRM, _late)  # tests that loop by themselves
        signal.setitimer(signal.ITIMER_REAL, max(0.001, self.deadline - time.monotonic()) + 0.2, 1.0)
        try:
            tests = None if job["tests"] is None else test_runner.parsed(job["tests"])
        except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
            return "error", f"the tests cannot be run: {_said(err)}"
        try:
            if tests is None:
                self._begin(channel, ["main", job["code"], job["memory_mb"], cpu_s])
                return self._ended()
            self._begin(channel, ["functions", None, job["memory_mb"], cpu_s])
            judge = test_runner.Judge(channel, self.deadline)
            judge.load(job["code"])
            test_runner.judged(judge, tests, job["entry_point"])
            return "correct", None
        except Late:
            return "late", None
        except Broken as err:
            return self._gone(str(err))
        except test_runner.Unsupported as err:
            return "error", _said(err)
        except MemoryError:
            return "wrong", "out of memory"
        except BaseException as err:  # whatever a test raises: it did not pass
            return "wrong", _said(err)

    def _begin(self, channel: Channel, first: list[Any]) -> None:
        """Start the program. Where its limits cannot be set, the whole sandbox ends: an outage and no verdict."""
        try:
            channel.send(first, self.deadline)
            if channel.receive(self.deadline) != "ready":
                raise Broken("it is not ready")
        except Broken:
            os.write(2, bytes(self.text[self._err]) + b"\nthe limits of a program cannot be set\n")
            os._exit(1)

    def _ended(self) -> tuple[str, str | None]:
        while self._open:
            self._wait([], self.deadline)
        while (found := os.waitpid(self.program, os.WNOHANG))[0] == 0:
            if time.monotonic() > self.deadline:
                return "late", None
            time.sleep(0.001)
        code = os.waitstatus_to_exitcode(found[1])
        return ("correct", None) if code == 0 else ("wrong", _end(code))

    def _gone(self, why: str) -> tuple[str, str | None]:
        for _ in range(200 if self._flood <= FLOOD else 0):
            pid, status = os.waitpid(self.program, os.WNOHANG)
            if pid:
                return "wrong", f"the program ended early: {_end(os.waitstatus_to_exitcode(status))}"
            time.sleep(0.001)
        return "wrong", f"the program cannot be asked any more: {why}"[:500]

    def _watch(self, deadline: float | None) -> None:
        while not self._wait([self.fd], deadline):
            pass

    def _wait(self, wanted: list[int], deadline: float | None) -> bool:
        """Read its output; true where one of the ``wanted`` descriptors (or, without any, a pipe) has something."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([*wanted, *self._open], [], [], left)
        if not ready and wanted:
            raise Late
        if not ready:
            if deadline is not None and deadline >= self.deadline:
                raise Late
            return False
        for one in [one for one in ready if one in self._open]:
            chunk = os.read(one, 1 << 16)
            if not chunk:
                self._open.remove(one)
            self._flood += len(chunk)
            self.text[one] += chunk[: MAX_OUTPUT - len(self.text[one])]
        if self._flood > FLOOD:
            raise Broken(f"more than {FLOOD >> 20} MiB of output")
        return any(one in ready for one in wanted) or not wanted


def _late(*_: Any) -> NoReturn:
    raise Late


def _end(code: int) -> str:
    try:
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _said(err: BaseException) -> str:
    try:
        text = str(err)
    except Exception:
        text = ""
    return f"{type(err).__name__}: {text}"[:500] if text else type(err).__name__
