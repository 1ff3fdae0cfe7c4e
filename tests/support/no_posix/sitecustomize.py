"""Hide from this project's code, in every process, all that Windows lacks; libraries still see it.

Python imports this module at its start if its folder is on PYTHONPATH.
"""

from __future__ import annotations

import builtins
import multiprocessing
import os
import signal
import socket
import types
from typing import Any

_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "uvloop"}
_SIGNALS = {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGXCPU"}
_BLOCKING = {"ITIMER_REAL", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK", "pthread_sigmask", "setitimer"}
_PROCESSES = {"WNOHANG", "fork", "killpg", "nice", "setpgid", "setsid"}
_USERS = {"geteuid", "getpgid", "getuid", "sched_getaffinity", "sysconf", "uname"}
_import = builtins.__import__


def _without(module: types.ModuleType, names: set[str], **replaced: Any) -> types.ModuleType:
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update({name: value for name, value in vars(module).items() if name not in names})
    copy.__dict__.update(replaced)
    return copy


def _get_context(method: str | None = None) -> Any:
    if method != "spawn":
        raise ValueError(f"cannot find context for {method!r}")  # as on Windows
    return multiprocessing.get_context(method)


_REPLACED = {
    "multiprocessing": _without(
        multiprocessing, set(), get_context=_get_context, get_all_start_methods=lambda: ["spawn"]
    ),
    "os": _without(os, _PROCESSES | _USERS),
    "signal": _without(signal, _SIGNALS | _BLOCKING),
    "socket": _without(socket, {"AF_UNIX", "recv_fds", "send_fds"}),
}


def _import_as_on_windows(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    if (globals or {}).get("__name__", "").partition(".")[0] in {"registry_tools", "pipeline"} and level == 0:
        if name in _MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in _REPLACED:
            return _REPLACED[name]
    return _import(name, globals, locals, fromlist, level)


builtins.__import__ = _import_as_on_windows
