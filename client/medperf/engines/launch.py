"""Becomes bubblewrap: run as a program of its own by the sandbox engine, it narrows itself and executes it.

Its plan comes as JSON on stdin, once the engine has put it into its cgroup. Standard library only, and nothing
of this package: it runs with `-I -S`, before the confinement holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

SETUP_FAILED = 125
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x20000
_CLONE_NEWUSER = 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_MS_NOSUID, _MS_NODEV = 2, 4
# The same numbers on every architecture (asm-generic, from Linux 5.2 on).
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, 0o2000000
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_IDMAP = 0x100000
_STAGE = Path("/tmp")  # noqa: S108 - a tmpfs of this process's own mount namespace

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    plan: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    die_with(plan["parent"])
    if plan["real_id"] is not None:
        stage(plan["mounts"], plan["real_id"])
        take_id(plan["real_id"])
        die_with(plan["parent"])  # the kernel forgets it at a change of user
    bound(plan["limits"], plan["processes"])
    if plan["processors"] is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: plan["processors"]])
    os.umask(0o022)
    # Nothing in bubblewrap's own environment: a container's LD_PRELOAD would be loaded before it is confined.
    os.execve(plan["command"][0], plan["command"], {})  # noqa: S606


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    if os.getppid() != parent:  # it died before the line above
        os._exit(SETUP_FAILED)


def take_id(real_id: int) -> None:
    """Become an unprivileged user for good."""
    os.setgroups([])
    os.setresgid(real_id, real_id, real_id)
    os.setresuid(real_id, real_id, real_id)


def bound(limits: dict[str, int], processes: int | None) -> None:
    for name, value in limits.items():
        _set_limit(getattr(resource, name), value)
    if processes is not None:
        # Counted for the real user as a whole: what runs already, but this process, is not the container's.
        _set_limit(resource.RLIMIT_NPROC, threads_of(os.getuid()) - 1 + processes)


def _set_limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def threads_of(uid: int) -> int:
    count = 0
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                # As bytes: the kernel cuts a process's name after 15, in the middle of a character too.
                if process.stat().st_uid == uid:
                    count += int((process / "stat").read_bytes().rpartition(b")")[2].split()[17])
    return count


def stage(mounts: list[dict[str, Any]], real_id: int) -> None:
    """Bind each host path to /tmp/0, /tmp/1, … in a mount namespace of this process's own.

    The user that it becomes need not be able to pass the folders above them (a home folder of mode 700). Each is
    mapped, where kernel and file system can (from Linux 5.12 on), so that the owner of its top appears as that
    user: it can read what the owner can, and what it writes belongs to the owner.
    """
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    sources = [os.open(mount["host"], os.O_PATH | os.O_CLOEXEC) for mount in mounts]
    _mount("tmpfs", str(_STAGE), _MS_NOSUID | _MS_NODEV, "tmpfs", "mode=755,size=4m")
    for place, (mount, source) in enumerate(zip(mounts, sources, strict=True)):
        target = _STAGE / str(place)
        path = f"/proc/self/fd/{source}"
        if os.path.isdir(path):  # noqa: PTH112 - pathlib would give the same
            target.mkdir()
        else:
            target.touch()
        _mount(path, str(target), _MS_BIND | _MS_REC)
        try:
            _map_owner(target, real_id)
        except OSError:
            if mount["writable"]:
                _give(target, real_id)  # the engine gives all of it back after the run


def _give(top: Path, real_id: int) -> None:
    """Have the run's user own an output, and what earlier runs left in it."""
    os.chown(top, real_id, real_id)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            os.lchown(os.path.join(folder, name), real_id, real_id)  # noqa: PTH118 - bytes of any name


def _map_owner(target: Path, real_id: int) -> None:
    status = target.stat()
    namespace = _user_namespace(status.st_uid, status.st_gid, real_id)
    path = os.fsencode(target)
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    tree = _syscall(_SYS_OPEN_TREE, _AT_FDCWD, path, flags)
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_IDMAP, 0, 0, namespace)
    _syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes, ctypes.sizeof(attributes))
    _syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, path, _MOVE_MOUNT_F_EMPTY_PATH)


def _user_namespace(owner: int, group: int, real_id: int) -> int:
    """A descriptor of a user namespace that maps `owner` and `group` to `real_id`; nothing runs in it."""
    ready, tell_ready = os.pipe()
    done, tell_done = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell_done)
        failed = _libc.unshare(_CLONE_NEWUSER)
        os.write(tell_ready, b"0" if failed else b"1")
        os.read(done, 1)
        os._exit(0)
    try:
        os.close(done)
        if os.read(ready, 1) != b"1":
            raise OSError("no user namespace")
        Path(f"/proc/{child}/uid_map").write_text(f"{owner} {real_id} 1")
        Path(f"/proc/{child}/gid_map").write_text(f"{group} {real_id} 1")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for descriptor in (ready, tell_ready, tell_done):
            os.close(descriptor)
        os.waitpid(child, 0)


def _mount(
    source: str | None, target: str, flags: int, kind: str | None = None, options: str | None = None
) -> None:
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    data = options.encode() if options is not None else None
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), data), f"mount {target}")


def _syscall(number: int, *arguments: Any) -> int:
    wide = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    _libc.syscall.restype = ctypes.c_long
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    _checked(result, f"system call {number}")
    return result


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        main()
    except OSError as broken:
        sys.stderr.write(f"medperf: the sandbox could not be set up: {broken}\n")
        sys.exit(SETUP_FAILED)
