"""A certificate from an ACME authority, by DNS-01, with Debian's lego.

What the service ``acme`` does. It reaches the world, so it has nothing of the site's CA: what it
got lies in ``acme/issued``, as one file, and the service ``certificates`` takes it from there.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from commons.site import SiteFileError
from commons.site.https import Acme
from hub_ext import tls
from hub_ext.tls import TLSError

ISSUED = Path("issued", "server.pem")
PROBLEM = Path("issued", "problem")
LEGO = "lego"
LIMIT = 540.0  # seconds for lego: until the zone's servers have the record
CONFIG = Path("/etc/labcommons")
# Seconds: HOST and *.HOST are proved one after the other by one record, which nobody keeps long.
SOON = {"RFC2136_TTL": "10", "RFC2136_SEQUENCE_INTERVAL": "15", "EXEC_SEQUENCE_INTERVAL": "15"}
LARGE = 65_536  # bytes of a settings file, a key, a problem
log = logging.getLogger("labcommons.acme")


def obtain(acme: Acme, folder: Path, names: Sequence[str], now: datetime | None = None) -> bool:
    """Have a certificate for these names, and lay it down; whether there is a new one.

    One that is right and has more than a third of its life before it stays. Raises TLSError with
    the authority's or the DNS's reason; what was there before stays.
    """
    if not due(acme, folder, names, now or datetime.now(UTC)):
        return False
    home = folder / "lego"
    home.mkdir(mode=0o700, exist_ok=True)
    words, environment = command(acme, folder, names)
    said = _run(words, environment)
    log.info("%s", said)
    stem = home / "certificates" / names[0].replace("*", "_")
    try:
        key, chain = Path(f"{stem}.key").read_bytes(), Path(f"{stem}.crt").read_bytes()
        got = x509.load_pem_x509_certificate(chain)
    except (OSError, ValueError) as error:
        raise TLSError(f"{LEGO} left no certificate: {error}") from error
    if missing := [name for name in names if not tls.covers(got, name)]:
        raise TLSError(f"{acme.directory} gave a certificate without {', '.join(missing)}")
    origin = f"# {acme.directory}\n".encode()
    (folder / ISSUED).parent.mkdir(mode=0o700, exist_ok=True)
    tls.write(folder / ISSUED, origin + key.rstrip() + b"\n" + chain, 0o600)
    return True


def due(acme: Acme, folder: Path, names: Sequence[str], now: datetime) -> bool:
    """Whether another one is wanted: none, too old, for other names, or of another authority."""
    try:
        text = (folder / ISSUED).read_bytes()
        present = x509.load_pem_x509_certificate(text)
    except (OSError, ValueError):
        return True
    until, life = present.not_valid_after_utc, tls.lifetime(present)
    return (
        until - now < life / 3
        or not all(tls.covers(present, name) for name in names)
        or not text.startswith(f"# {acme.directory}\n".encode())
    )


def command(acme: Acme, folder: Path, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """lego's words and variables. Raises TLSError for a file that is missing or cannot be used."""
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": "/tmp", **SOON}  # noqa: S108
    environment |= _settings(folder / "settings")
    if acme.nameserver:
        method = "rfc2136"
        environment |= _nsupdate(acme.nameserver, folder / "nsupdate.key")
    elif acme.hook:
        method = "exec"
        hook = CONFIG / acme.hook
        if not os.access(hook, os.X_OK):
            raise TLSError(f"https.acme.hook: config/{acme.hook} is not there, or may not be run")
        environment["EXEC_PATH"] = str(hook)
    else:
        method = acme.provider
    words = [LEGO, "--accept-tos", "--path", str(folder / "lego"), "--key-type", "ec256"]
    words += ["--server", acme.directory, "--email", acme.email, "--dns", method]
    words += [word for resolver in acme.resolvers for word in ("--dns.resolvers", resolver)]
    words += [word for name in names for word in ("--domains", name)]
    if not acme.check_dns:
        words.append("--dns.disable-cp")
    if acme.eab_kid:
        hmac = _text(folder / "eab-hmac").strip()
        words += ["--eab", "--kid", acme.eab_kid, "--hmac", hmac]
    if (folder / "ca.crt").exists():
        environment["LEGO_CA_CERTIFICATES"] = str(folder / "ca.crt")
    return [*words, "run"], environment


def take(folder: Path, issued: Path, names: Sequence[str]) -> None:
    """Put what the authority gave into ``server.key`` and ``server.crt``.

    Where it is not for all of these names any more, the site's CA makes one until it is.
    Raises TLSError for a file that is no pair.
    """
    crt, key_file = folder / "server.crt", folder / "server.key"
    try:
        text = issued.read_bytes()
    except FileNotFoundError:
        return
    try:
        got = x509.load_pem_x509_certificate(text)
        begin = text.index(b"-----BEGIN CERTIFICATE")
    except ValueError as error:
        raise TLSError(f"{issued}: not a PEM certificate: {error}") from error
    with tls.alone(folder):
        present = crt.read_bytes() if crt.exists() else b""
        if not all(tls.covers(got, name) for name in names):
            if present == text[begin:]:
                crt.unlink()
                key_file.unlink(missing_ok=True)
        elif present != text[begin:] or not tls.is_key_of(key_file, got):
            key = text[text.index(b"-----BEGIN ") : begin]
            tls.write(key_file, key, 0o600)
            tls.write(crt, text[begin:], 0o644)


def problem(issued: Path) -> str:
    """Why the last try failed; "" where it did not."""
    try:
        return issued.with_name(PROBLEM.name).read_bytes()[:LARGE].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What fails is written down for ``certificates``, which tells doctor; and is a TLSError."""
    place = folder / PROBLEM
    place.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        yield
    except (TLSError, SiteFileError, OSError) as error:
        said = error.message if isinstance(error, TLSError) else str(error)
        with suppress(OSError):  # a full disk is told elsewhere, too
            tls.write(place, said.encode(), 0o600)
        raise TLSError(said) from error
    with suppress(FileNotFoundError):
        place.unlink()


def _run(words: Sequence[str], environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=LIMIT, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise TLSError(f"{LEGO} is not in this image: run make up, which builds it") from error
    except subprocess.TimeoutExpired as error:
        log.error("%s", (error.stdout or b"")[-LARGE:].decode("utf-8", "replace"))
        raise TLSError(
            f"ACME: no certificate within {LIMIT:.0f} s; see docker compose logs acme"
        ) from error
    said = done.stdout[-LARGE:].decode("utf-8", "replace")
    if done.returncode:
        log.error("%s", said)
        raise TLSError(f"ACME: {_reason(said)}; see docker compose logs acme")
    return said


def _reason(said: str) -> str:
    """The last thing that it complains of, in one line of at most 300 characters."""
    lines = [re.sub(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ", "", line) for line in said.splitlines()]
    lines = [" ".join(line.split()) for line in lines if line.strip()]
    wrong = [line for line in lines if "error" in line.lower() or "could not" in line.lower()]
    return ([*lines[-1:], *wrong] or ["it ended without a word"])[-1][:300].rstrip(".")


def _nsupdate(nameserver: str, file: Path) -> dict[str, str]:
    """lego's variables for RFC 2136. The key as tsig-keygen writes it, or ALGORITHM:NAME:SECRET."""
    text = _text(file)
    name = re.search(r'\bkey\s+"?([^"\s{]+)"?\s*\{', text)
    algorithm = re.search(r'\balgorithm\s+"?([\w-]+)"?\s*;', text)
    secret = re.search(r'\bsecret\s+"?([A-Za-z0-9+/=]+)"?\s*;', text)
    if name and algorithm and secret:
        found = algorithm[1], name[1], secret[1]
    elif match := re.fullmatch(r"\s*([\w-]+):([^:\s]+):([A-Za-z0-9+/=]+)\s*", text):
        found = match[1], match[2], match[3]
    else:
        raise TLSError(f"{file}: no key as tsig-keygen writes it, nor ALGORITHM:NAME:SECRET")
    return {
        "RFC2136_NAMESERVER": nameserver,
        "RFC2136_TSIG_ALGORITHM": found[0].rstrip(".") + ".",
        "RFC2136_TSIG_KEY": found[1],
        "RFC2136_TSIG_SECRET": found[2],
    }


def _settings(file: Path) -> dict[str, str]:
    """Lines NAME=VALUE; nothing where there is no file."""
    found: dict[str, str] = {}
    for number, line in enumerate(_text(file).splitlines() if file.exists() else (), 1):
        match = re.fullmatch(r"([A-Z][A-Z0-9_]*)=(.*)", line.strip())
        if match:
            found[match[1]] = match[2]
        elif line.strip() and not line.lstrip().startswith("#"):
            raise TLSError(f"{file}, line {number}: write NAME=VALUE")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_bytes()[:LARGE].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TLSError(
            f"data/acme/{file.name} cannot be read: {reason}; put it there, owned by uid 990"
        ) from error
