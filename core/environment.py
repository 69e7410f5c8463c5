"""The environment of programs that `ar` starts for a person: an allow-list.

The environment holds the keys of model providers, clouds and package registries. A coding agent, a command of
`--on-keep`, a tracker and git need none of them, unless the person says so by name. (Trials see far less:
`trial/sandbox/environment.py`.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from autoresearch.core.errors import PrerequisiteError, UsageError

ALLOWED = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLORTERM", "TMPDIR", "TZ", "PWD", "SYSTEMROOT"),
        *("AR_DATA_DIR", "AR_WORKSPACE"),
        *("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_COLLATE", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME"),
        *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
        *("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"),  # a notification on the desktop
        *("SSH_AUTH_SOCK", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO"),
        *("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"),
        *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
        *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"),
    )
)
"""Names, not patterns: nothing that holds a key comes along because it is called like something else."""
_GIT_CONFIG = re.compile(r"GIT_CONFIG_(COUNT|(KEY|VALUE)_\d+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def allowed_environment(also: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables in ALLOWED, and those named in `also`, as they are now."""
    wanted = ALLOWED | set(also)
    return {name: value for name, value in os.environ.items() if name in wanted}


def git_environment() -> dict[str, str]:
    """Return what git may see: the same, and settings that were given to it as variables.

    Not among them are the variables that git sets for its hooks: they would point it at another repository or index.
    """
    return {**allowed_environment(), **{name: v for name, v in os.environ.items() if _GIT_CONFIG.fullmatch(name)}}


def check_names(option: str, names: Iterable[str]) -> None:
    """Check that every name of an option is a variable's, and is set. Raises `UsageError` or `PrerequisiteError`."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{option} takes the name of a variable, and {name.partition('=')[0]!r} is not one.",
                fix=f"export the variable, and give its name alone: {option} OPENAI_API_KEY",
            )
        if name not in os.environ:
            raise PrerequisiteError(f"{option} names {name}, which is not set.", fix=f"export {name}, or leave it out")
