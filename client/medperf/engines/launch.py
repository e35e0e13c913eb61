"""Becomes bubblewrap or Apptainer: a program of its own that narrows itself, and executes the one it is told of.

Its plan comes as a line of JSON on stdin, once the engine has put it into its cgroup; what follows on stdin is for
the gate inside the sandbox. Standard library only, and nothing of this package: it runs with `-I -S`, before the
confinement holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

SETUP_FAILED = 125
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWNS = 0x20000
_CLONE_NEWUSER = 0x10000000
# Host name, IPC, processes, network.
_CLONE_OTHERS = 0x4000000 | 0x8000000 | 0x20000000 | 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
# The same numbers on every architecture (asm-generic, from Linux 5.2 on).
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, 0o2000000
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_IDMAP = 0x100000
_STAGE = Path("/tmp")  # noqa: S108 - a tmpfs of this process's own mount namespace
# In it a folder for what is the engine's: below it the user that this process becomes may mount.
_OWN = _STAGE / "own"

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    # Without a buffer, which would take more than the line.
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        plan: dict[str, Any] = json.loads(stdin.readline())
    if not plan["has_gate"]:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    die_with(plan["parent"])
    if plan["real_id"] is not None:
        stage(plan["mounts"], plan["real_id"])
        take_id(plan["real_id"])
        die_with(plan["parent"])  # the kernel forgets it at a change of user
    bound(plan["limits"], plan["processes"])
    if plan["processors"] is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: plan["processors"]])
    os.umask(0o022)
    if plan["enclosure"] is not None:
        enclose(plan)
    os.execve(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606


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


def enclose(plan: dict[str, Any]) -> NoReturn:
    """Execute the plan's command in namespaces of its own, in which this user may mount.

    For a program whose own are weaker. This process stays outside: it reports as bubblewrap does which process is
    inside and how that ended, and when it is killed, the kernel kills all that are inside.
    """
    enclosure = plan["enclosure"]
    os.set_inheritable(enclosure["status"], False)
    _own_namespaces(enclosure["inside_id"], enclosure["namespaces"])
    if plan["real_id"] is None:
        stage(plan["mounts"], None)
    _furnish(enclosure)
    alive, is_alive = os.pipe()
    failed, tell_failed = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(is_alive)
        _be_first(plan, alive, tell_failed)
    os.close(tell_failed)
    if not os.read(failed, 1):
        os.write(enclosure["status"], json.dumps({"child-pid": child}).encode())
    code = _exit_code(os.waitpid(child, 0)[1])
    os.write(enclosure["status"], json.dumps({"exit-code": code}).encode())
    os._exit(code)


def _be_first(plan: dict[str, Any], alive: int, tell_failed: int) -> NoReturn:
    """Be the first process inside, which dies with the one outside, until the command has ended.

    The command cannot be that itself: the kernel forgets whom it is to die with when it makes a user namespace.
    """
    try:
        _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
        if select.select([alive], [], [], 0)[0]:  # the one outside died before the line above
            os._exit(SETUP_FAILED)
        _mount("proc", "/proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "proc")
        # A site may have a set-id `starter-suid` or `fusermount3`.
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        command = os.fork()
        if command == 0:
            os.execve(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606
    except OSError:
        os.write(tell_failed, b"!")
        raise
    os.close(tell_failed)
    while True:
        ended, status = os.wait()  # those too that lost their parent
        if ended == command:
            os._exit(_exit_code(status))


def _exit_code(status: int) -> int:
    """As a shell has it: a signal counts from 128 on."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _own_namespaces(inside_id: int, more: int) -> None:
    """Namespaces of this process's own, where it sees itself as `inside_id`; `more` of users can be made below."""
    uid, gid = os.getuid(), os.getgid()
    # A process that changed its user is root's to look into: its maps would be too.
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 1), "prctl")
    _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_OTHERS), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside_id} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{inside_id} {gid} 1")
    Path("/proc/sys/user/max_user_namespaces").write_text(str(more))
    name = b"container"
    _checked(_libc.sethostname(name, len(name)), "sethostname")


def _furnish(enclosure: dict[str, Any]) -> None:
    """Lay out what the command needs beside the staged paths: folders in memory, devices, links, files.

    A file whose path there is on the host covers that one, here alone.
    """
    for path, size in enclosure["folders"]:
        Path(path).mkdir(exist_ok=True)
        _mount("tmpfs", path, _MS_NOSUID | _MS_NODEV, "tmpfs", f"mode=1777,size={size}")
    for path, target in enclosure["links"].items():
        Path(path).symlink_to(target)
    for path, host in enclosure["binds"].items():
        Path(path).touch()
        _mount(host, path, _MS_BIND)
    for number, (path, text) in enumerate(enclosure["files"].items()):
        file = Path(enclosure["files_folder"], str(number))
        file.write_text(text)
        if Path(path).exists():
            _mount(str(file), path, _MS_BIND)


def stage(mounts: list[dict[str, Any]], real_id: int | None) -> None:
    """Bind each host path to /tmp/0, /tmp/1, … in a mount namespace of this process's own.

    The user that it becomes need not be able to pass the folders above them (a home folder of mode 700). Each is
    mapped, where kernel and file system can (from Linux 5.12 on), so that the owner of its top appears as that
    user: it can read what the owner can, and what it writes belongs to the owner.
    """
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    sources = [os.open(mount["host"], os.O_PATH | os.O_CLOEXEC) for mount in mounts]
    _mount("tmpfs", str(_STAGE), _MS_NOSUID | _MS_NODEV, "tmpfs", "mode=755,size=4m")
    _OWN.mkdir()
    for place, (mount, source) in enumerate(zip(mounts, sources, strict=True)):
        target = _STAGE / str(place)
        path = f"/proc/self/fd/{source}"
        if os.path.isdir(path):  # noqa: PTH112 - pathlib would give the same
            target.mkdir()
        else:
            target.touch()
        _mount(path, str(target), _MS_BIND | _MS_REC)
        if real_id is None:
            continue
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
        sys.stderr.write(f"medperf: the confinement could not be set up: {broken}\n")
        sys.exit(SETUP_FAILED)
