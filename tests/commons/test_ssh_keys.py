"""Public keys: what is taken, and how what is not is refused."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons import ssh_keys
from commons.errors import BadRequest
from commons.store import Store
from commons.store import ssh_keys as kept

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf92H6zqwdnjLjvozHc9LF69n09jYsQv0WU82phJ/6z"


def made(folder: Path, *words: str) -> str:
    path = folder / "key"
    subprocess.run(
        ["ssh-keygen", "-q", *words, "-N", "", "-C", "me@there", "-f", path], check=True, timeout=60
    )
    return path.with_suffix(".pub").read_text()


def string(*parts: bytes) -> str:
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return base64.b64encode(blob).decode()


@pytest.mark.parametrize(
    "words",
    [
        ("-t", "ed25519"),
        ("-t", "ecdsa", "-b", "256"),
        ("-t", "ecdsa", "-b", "384"),
        ("-t", "ecdsa", "-b", "521"),
        ("-t", "rsa", "-b", "3072"),
    ],
)
def test_what_openssh_makes_is_taken_with_its_own_fingerprint(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    key = ssh_keys.parse(made(tmp_path, *words))
    assert key.comment == "me@there"
    said = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert key.fingerprint in said
    assert ssh_keys.parse(key.line).blob == key.blob


def test_keys_of_security_keys_are_taken() -> None:
    ed, ec = "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"
    assert ssh_keys.parse(f"{ed} {string(ed.encode(), bytes(32), b'ssh:')}").kind == ed
    point = b"\4" + bytes(64)
    line = f"{ec} {string(ec.encode(), b'nistp256', point, b'ssh:')} yubi"
    assert ssh_keys.parse(line).comment == "yubi"


ED = b"ssh-ed25519"
REFUSED = {
    "": "ssh_key_unreadable",
    "A" * 100_000: "ssh_key_long",
    f"{LINE} {'x' * 9000}": "ssh_key_long",
    "密" * 4000: "ssh_key_long",
    f'command="sh" {LINE}': "ssh_key_options",
    f"no-pty,from=\"*\" {LINE}": "ssh_key_options",
    f"cert-authority {LINE}": "ssh_key_options",
    f"{LINE}\n{LINE}": "ssh_key_unreadable",
    f"{LINE}\0": "ssh_key_unreadable",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "ssh_key_private",
    "ssh-dss AAAAB3NzaC1kc3MAAACB": "ssh_key_kind",
    "ssh-ed448 AAAA": "ssh_key_kind",
    "ssh-ed25519-cert-v01@openssh.com AAAA": "ssh_key_kind",
    "ssh-ed25519": "ssh_key_unreadable",
    "ssh-ed25519 !!!!": "ssh_key_unreadable",
    f"ssh-ed25519 {string(ED, bytes(31))}": "ssh_key_unreadable",
    f"ssh-ed25519 {string(ED, bytes(32), b'more')}": "ssh_key_unreadable",
    f"ssh-ed25519 {string(b'ssh-rsa', bytes(32))}": "ssh_key_unreadable",
    f"ssh-ed25519 {string(*[ED] * 100)}": "ssh_key_unreadable",
    f"ssh-ed25519 {base64.b64encode(bytes([255]) * 64).decode()}": "ssh_key_unreadable",
    f"ssh-rsa {string(b'ssh-rsa', bytes([1, 0, 1]), bytes([1]) * 128)}": "ssh_key_weak",
    f"ssh-rsa {string(b'ssh-rsa', bytes([1, 0, 1]), bytes([1]) * 4000)}": "ssh_key_weak",
    f"ssh-rsa {string(b'ssh-rsa', bytes([2]), bytes([1]) * 384)}": "ssh_key_weak",
    f"ecdsa-sha2-nistp192 {string(b'ecdsa-sha2-nistp192', b'nistp192', bytes(49))}": "ssh_key_kind",
    f"ecdsa-sha2-nistp256 {string(b'ecdsa-sha2-nistp256', b'nistp384', bytes([4]) * 65)}":
        "ssh_key_unreadable",
}  # fmt: skip


@pytest.mark.parametrize(("line", "code"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_no_key_is_refused_and_why(line: str, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ssh_keys.parse(line)
    assert refused.value.code == code


BLOBS = st.binary(max_size=100).map(lambda blob: f"ssh-rsa {base64.b64encode(blob).decode()}")


@given(st.text(max_size=200) | BLOBS)
def test_whatever_is_pasted_is_a_key_or_refused(text: str) -> None:
    try:
        key = ssh_keys.parse(text)
    except BadRequest:
        return
    assert key.line.split()[0] == key.kind


def test_a_list_of_keys_is_bounded_and_each_is_there_once(store: Store) -> None:
    store.transact(lambda s: kept.add(s, "alice", f"{LINE} laptop"))
    with pytest.raises(BadRequest) as twice:
        store.transact(lambda s: kept.add(s, "alice", LINE))
    assert twice.value.code == "ssh_key_known"
    store.transact(lambda s: kept.add(s, "bob", LINE))  # somebody else's, as well
    for number in range(kept.MOST - 1):
        line = f"ssh-ed25519 {string(ED, bytes([number]) * 32)}"
        store.transact(lambda s, line=line: kept.add(s, "alice", line))
    line = f"ssh-ed25519 {string(ED, bytes([99]) * 32)}"
    with pytest.raises(BadRequest) as many:
        store.transact(lambda s: kept.add(s, "alice", line))
    assert many.value.code == "ssh_keys_many"
    print_ = ssh_keys.parse(LINE).fingerprint
    store.transact(lambda s: kept.remove(s, "alice", print_))
    with pytest.raises(BadRequest) as gone:
        store.transact(lambda s: kept.remove(s, "alice", print_))
    assert gone.value.status == 404
    assert len(store.transact(lambda s: [r.name for r in kept.of(s, "bob")], read=True)) == 1
