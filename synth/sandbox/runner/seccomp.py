"""The seccomp filters of programs: no new processes, sockets, signals to others, or calls of administration.

Made by libseccomp, which knows the numbers of every architecture and refuses calls of another one. What is refused gets
EPERM (clone3 ENOSYS, so that the C library falls back on clone, whose flags a filter can read). Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable

Filters = dict[frozenset[str], Callable[[], None]]
"""Calls that are allowed beside threads -> installs the filter for this process, its threads and children, for good."""

NOTHING: frozenset[str] = frozenset()
EXECUTE = frozenset(("execve",))
PROCESSES = EXECUTE | {"fork", "vfork", "execveat", "kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"}
_ALWAYS = """
    socket connect accept accept4 bind listen pidfd_send_signal pidfd_open pidfd_getfd ptrace process_vm_readv
    process_vm_writev process_madvise process_mrelease kcmp mount umount2 pivot_root chroot unshare setns open_tree
    move_mount fsopen fsconfig fsmount fspick mount_setattr memfd_create memfd_secret shmget shmat shmctl msgget semget
    mq_open bpf perf_event_open add_key request_key keyctl io_uring_setup io_uring_enter io_uring_register userfaultfd
    kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff open_by_handle_at
    name_to_handle_at quotactl syslog acct settimeofday clock_settime clock_adjtime adjtimex fanotify_init sethostname
    setdomainname personality seccomp sched_setaffinity setpriority modify_ldt
"""
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7
_CLONE_THREAD = 0x10000
_CLONE_NEW = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)  # namespaces
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def make_filters() -> Filters:
    """The filter for each set of allowed calls. Raises OSError where libseccomp or the kernel's part is missing."""
    return {allowed: _make_filter(allowed) for allowed in (NOTHING, EXECUTE, PROCESSES)}


def _make_filter(allowed: frozenset[str]) -> Callable[[], None]:
    try:
        lib = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise OSError(errno.ENOENT, "libseccomp.so.2 is missing: install libseccomp2") from None
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(_ALLOW))

    def refuse(name: str, error: int = errno.EPERM, argument: _Compare | None = None) -> None:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else this architecture has no such call
            compare = None if argument is None else ctypes.byref(argument)
            code = lib.seccomp_rule_add_array(context, _ERRNO | error, number, int(argument is not None), compare)
            if code:
                raise OSError(-code, f"seccomp: {name}")

    for name in (*PROCESSES - allowed, *_ALWAYS.split()):
        refuse(name)
    refuse("clone3", errno.ENOSYS)
    for flag in _CLONE_NEW:
        refuse("clone", argument=_Compare(0, _MASKED_EQUAL, flag, flag))
    if not allowed >= PROCESSES:  # threads alone
        refuse("clone", argument=_Compare(0, _MASKED_EQUAL, _CLONE_THREAD, 0))
    for option in (PR_SET_PDEATHSIG, PR_SET_DUMPABLE):
        refuse("prctl", argument=_Compare(0, _EQUAL, option, 0))

    def install() -> None:
        if code := lib.seccomp_load(context):
            raise OSError(-code, "seccomp")

    return install
