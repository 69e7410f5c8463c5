"""Signatures over a certificate by a person's SSH key, made and checked by ssh-keygen."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from autoresearch.core.errors import PrerequisiteError, UsageError, system_words
from autoresearch.core.report.wording import one_line
from autoresearch.core.textfile import open_plain

NAMESPACE = "ar-certificate"
"""Purpose that the signatures name: one made for anything else does not count here."""
SECONDS = 60.0
MOST_KEY_BYTES = 1 << 20
_SIGNED_BY = re.compile(r"Good .* signature .*with (\S+) key (SHA256:[A-Za-z0-9+/=]+)")


def sign(content: bytes, key: Path) -> bytes:
    """Sign with a private key, or with the agent's key of a public one; ssh-keygen may ask for a passphrase.

    Raises `PrerequisiteError` without ssh-keygen, `UsageError` for a key that cannot sign.
    """
    fix = "name a private key: --sign ~/.ssh/id_ed25519"
    _check_key(key, "cannot sign", fix)
    with tempfile.TemporaryDirectory(prefix="ar-sign-") as name:
        file = Path(name) / "certificate.json"
        file.write_bytes(content)
        done = _run(["-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(file)], timeout=None)
        signed = file.with_name(file.name + ".sig")
        if done.returncode != 0 or not signed.is_file():
            said = one_line(done.stderr.decode(errors="replace"), 200)
            raise UsageError(f"{key} cannot sign: {said}.", fix=fix)
        return signed.read_bytes()


def signer_of(content: bytes, signature: bytes) -> str | None:
    """Return the fingerprint of the key that signed; None where the signature does not fit."""
    with tempfile.TemporaryDirectory(prefix="ar-sign-") as name:
        file = Path(name) / "signature"
        file.write_bytes(signature)
        done = _run(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(file)], stdin=content)
        found = _SIGNED_BY.search(done.stdout.decode(errors="replace"))
        return found.group(2) if done.returncode == 0 and found else None


def fingerprint_of(key: Path) -> str:
    """Return the fingerprint of a public key's file. Raises `UsageError`."""
    fix = "--signer their_key.pub"
    _check_key(key, "is not a public key", fix)
    done = _run(["-l", "-E", "sha256", "-f", str(key)])
    found = re.search(r"SHA256:[A-Za-z0-9+/=]+", done.stdout.decode(errors="replace"))
    if done.returncode != 0 or not found:
        raise UsageError(f"{key} is not a public key.", fix=fix)
    return found.group(0)


def _check_key(key: Path, fault: str, fix: str) -> None:
    """Check that a key is a plain file: ssh-keygen reads a device without an end. Raises `UsageError`."""
    try:
        open_plain(key, MOST_KEY_BYTES).close()
    except (OSError, ValueError) as error:
        raise UsageError(f"{key} {fault}: {system_words(error)}.", fix=fix) from error


def _run(
    arguments: list[str], stdin: bytes | None = None, timeout: float | None = SECONDS
) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise PrerequisiteError("signatures need ssh-keygen.", fix="install OpenSSH's client")
    try:
        return subprocess.run([program, *arguments], input=stdin, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise PrerequisiteError(f"ssh-keygen did not answer within {SECONDS:g} s.") from error
