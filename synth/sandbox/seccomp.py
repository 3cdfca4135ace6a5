"""The seccomp filter of the sandbox: allows threads, refuses processes, sockets, signals and calls of administration.

Standard library only: it runs inside the sandbox. What is refused gets EPERM (clone3 ENOSYS, so that the C library
falls back on clone, whose flags a filter can read). A call of another architecture or of the x32 interface kills.
Tables for x86_64 and aarch64, from the kernel's headers.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

__all__ = ["install", "supported"]

_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: (x86_64, aarch64); None where the architecture has no such call
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242), "bind": (49, 200),
    "listen": (50, 201), "kill": (62, 129), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "bpf": (321, 280), "perf_event_open": (298, 241), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "userfaultfd": (323, 282), "kexec_load": (246, 104),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "quotactl": (179, 60), "syslog": (103, 116), "acct": (163, 89), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "fanotify_init": (300, 262), "sethostname": (170, 161),
    "setdomainname": (171, 162), "personality": (135, 92), "seccomp": (317, 277),
    "sched_setaffinity": (203, 122), "setpriority": (141, 140), "modify_ldt": (154, None),
}  # fmt: skip
_CLONE, _CLONE3, _PRCTL, _TGKILL, _SOCKETPAIR = (56, 220), (435, 435), (157, 167), (234, 131), (53, 199)
_CLONE_THREAD = 0x10000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000


def supported() -> bool:
    return platform.machine() in _ARCH


def install() -> None:
    """Install the filter for this process and its threads, for good. Raises OSError without seccomp in the kernel."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "no_new_privs")
    program = _program()
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(22, 2, ctypes.create_string_buffer(header, len(header)), 0, 0):  # PR_SET_SECCOMP, a filter
        raise OSError(ctypes.get_errno(), "seccomp")


def _program() -> bytes:
    column = ("x86_64", "aarch64").index(platform.machine())
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    lines = [
        (_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCH[platform.machine()]), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL),
        (_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        # clone: threads alone
        (_EQUAL, 0, 4, _CLONE[column]), (_LOAD, 0, 0, 16), (_ANY_BIT, 1, 0, _CLONE_THREAD), refuse,
        (_RETURN, 0, 0, _ALLOW),
        # prctl: the signal at the parent's death and the protection from other processes stay as they are
        (_EQUAL, 0, 5, _PRCTL[column]), (_LOAD, 0, 0, 16), (_EQUAL, 1, 0, _PR_SET_PDEATHSIG),
        (_EQUAL, 0, 1, _PR_SET_DUMPABLE), refuse, (_RETURN, 0, 0, _ALLOW),
        # socketpair: of the Unix family, which asyncio wakes itself with
        (_EQUAL, 0, 4, _SOCKETPAIR[column]), (_LOAD, 0, 0, 16), (_EQUAL, 1, 0, 1), refuse, (_RETURN, 0, 0, _ALLOW),
        # tgkill: raise() and abort() signal the caller itself, everyone else is another process
        (_EQUAL, 0, 1, _TGKILL[column]), refuse,
    ]  # fmt: skip
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            lines += [(_EQUAL, 0, 1, number), refuse]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in lines)
