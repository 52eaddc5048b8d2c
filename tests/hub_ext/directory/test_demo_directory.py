"""The demo's directory in its container: it seeds itself, survives a kill, and is strict."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from rig.certificates import Authority

pytestmark = [pytest.mark.docker, pytest.mark.ldap]

CONFIG = Path(__file__).parents[3] / "config"
SERVICE = "cn=labcommons,ou=services,dc=lab,dc=demo"
PATIENCE = 30.0  # seconds for slapd to answer


@pytest.fixture(scope="module")
def image() -> str:
    built, _log = docker.from_env(timeout=300).images.build(
        path=str(CONFIG / "demo" / "directory"),
        dockerfile=str(CONFIG / "images" / "directory" / "Dockerfile"),
        tag="lctest/directory:latest",
        rm=True,
    )
    return str(built.id)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    (tmp_path / "tls").mkdir()
    Authority(tmp_path / "tls").issue("directory")
    path = tmp_path / "directory-password"
    path.write_text("first-secret\n")
    for file in [path, *(tmp_path / "tls").iterdir()]:
        file.chmod(0o444)
    # The container's user must get through every folder above.
    for folder in [tmp_path, *tmp_path.parents[:2]]:
        folder.chmod(folder.stat().st_mode | 0o011)
    return path


@pytest.fixture
def directory(image: str, password_file: Path) -> Iterator[Container]:
    client = docker.from_env(timeout=30)
    name = f"lctest-directory-{uuid.uuid4().hex[:8]}"
    container = client.containers.create(
        image,
        name=name,
        hostname="directory",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        volumes={
            name: {"bind": "/var/lib/labcommons-directory", "mode": "rw"},
            str(password_file): {"bind": "/run/labcommons/directory-password", "mode": "ro"},
            str(password_file.parent / "tls"): {"bind": "/run/labcommons/tls", "mode": "ro"},
        },
    )
    yield container
    container.remove(force=True)
    client.volumes.get(name).remove()


def run(container: Container, *command: str) -> tuple[int, str]:
    code, output = container.exec_run(
        list(command), environment={"LDAPTLS_CACERT": "/run/labcommons/tls/ca.crt"}
    )
    return code, output.decode()


def bind(container: Container, dn: str, password: str, *options: str) -> tuple[int, str]:
    url = "ldap://directory:1389"
    return run(container, "ldapwhoami", "-x", "-H", url, "-D", dn, "-w", password, *options)


def start(container: Container) -> None:
    container.start()
    end = time.monotonic() + PATIENCE
    while run(container, "sh", "/opt/labcommons-directory/healthcheck")[0] != 0:
        assert time.monotonic() < end, container.logs().decode()
        time.sleep(0.1)


def test_people_and_the_service_account_log_in_under_tls_only(directory):
    start(directory)
    for dn, password in [
        ("uid=alice,ou=people,dc=lab,dc=demo", "alice-demo"),
        ("uid=s40,ou=people,dc=lab,dc=demo", "s40-demo"),
        (SERVICE, "first-secret"),
    ]:
        assert bind(directory, dn, password, "-ZZ") == (0, f"dn:{dn}\n")
        code, output = bind(directory, dn, password)
        assert code == 13, output  # confidentialityRequired


def test_nobody_reads_without_an_account_and_nobody_reads_passwords(directory):
    start(directory)
    search = ("ldapsearch", "-x", "-LLL", "-ZZ", "-H", "ldap://directory:1389")
    where = ("-b", "dc=lab,dc=demo", "uid=alice")
    assert "uid:" not in run(directory, *search, *where)[1]
    code, entry = run(directory, *search, "-D", SERVICE, "-w", "first-secret", *where)
    assert code == 0
    assert "uidNumber: 20003" in entry
    assert "userPassword" not in entry


def test_a_kill_while_it_seeds_is_healed_by_the_next_start(directory):
    directory.start()
    for line in directory.logs(stream=True, follow=True):
        if b"seeding" in line:
            break
    directory.kill()
    start(directory)
    assert bind(directory, "uid=s40,ou=people,dc=lab,dc=demo", "s40-demo", "-ZZ")[0] == 0


def test_a_new_service_password_counts_from_the_next_start(directory, password_file):
    start(directory)
    directory.kill()
    password_file.chmod(0o644)
    password_file.write_text("second-secret\n")
    start(directory)
    assert bind(directory, SERVICE, "second-secret", "-ZZ")[0] == 0
    assert bind(directory, SERVICE, "first-secret", "-ZZ")[0] == 49  # invalidCredentials


def test_a_missing_secret_is_named(image):
    container = docker.from_env(timeout=30).containers.create(image)
    try:
        container.start()
        assert container.wait(timeout=30)["StatusCode"] == 1
        assert b"cannot be read; mount it" in container.logs()
    finally:
        container.remove(force=True, v=True)
