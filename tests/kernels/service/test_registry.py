"""The registry on disk: what a pass writes and removes, and what a crash leaves to the next."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.service.entries import CatalogRow, RegistryEntry, from_catalog
from kernels.service.registry import Changes, write_registry
from tests.kernels.conftest import IPYKERNEL

BASH = {"argv": ["bash-kernel"], "display_name": "Bash", "language": "bash"}


def entry(name: str = "data", version: str = "1", **kernelspecs: object) -> CatalogRow:
    found = kernelspecs or {"python3": IPYKERNEL}
    return CatalogRow(name, version, f"/opt/conda/envs/{name}", "3.13.5", found)


def kernels(*rows: CatalogRow) -> list[RegistryEntry]:
    return [found for row in rows if (found := from_catalog(row)[0])]


def shelves(entries: list[RegistryEntry]) -> dict[tuple[str, ...], dict[str, bytes]]:
    return {entry.shelf: {k.name: k.content for k in entry.kernels} for entry in entries}


def write(root: Path, entries: list[RegistryEntry]) -> Changes:
    return write_registry(root, shelves(entries))


def document(entry: RegistryEntry) -> object:
    return json.loads(entry.kernels[0].content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "kernels"


def listed(root: Path) -> list[str]:
    """All kernel.json of the registry, by path."""
    return sorted(str(path.parent.relative_to(root)) for path in root.rglob("kernel.json"))


DATA = "image/data/1/kernels/conda-image-data-python3"


# What should be there --------------------------------------------------------------------------


def test_a_plain_kernelspec_with_our_marker_is_made_from_the_catalog() -> None:
    (found,) = kernels(entry())
    (kernel,) = found.kernels
    made = document(found)
    assert kernel.name == "conda-image-data-python3"
    assert made["display_name"] == kernel.display_name == "data - Python 3.13"
    assert made["argv"][0] == "/opt/conda/envs/data/bin/python"
    assert made["metadata"]["labcommons"] == {
        "source": "image",
        "environment": "data",
        "version": "1",
        "prefix": "/opt/conda/envs/data",
    }


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".", "..", ".hidden", "a\n", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    for item in (entry(name), entry("data", name)):
        found, problems = from_catalog(item)
        assert found is None
        assert len(problems) == 1


@pytest.mark.parametrize(
    "prefix", ["opt/data", "/opt/../data", "/opt//data", "/", "/opt/da\nta/data", "/opt/other"]
)
def test_a_prefix_that_is_no_plain_path_to_the_name_is_refused(prefix: str) -> None:
    found, problems = from_catalog(CatalogRow("data", "1", prefix, None, {"python3": IPYKERNEL}))
    assert found is None
    assert "prefix" in str(problems[0])


def test_a_hostile_kernelspec_is_refused_and_its_neighbour_kept() -> None:
    found, problems = from_catalog(
        entry(python3=IPYKERNEL, evil={**IPYKERNEL, "argv": ["/bin/sh", "-c", "id"]})
    )
    assert [kernel.name for kernel in found.kernels] == ["conda-image-data-python3"]
    assert "'evil'" in str(problems[0])
    assert "outside the environment" in str(problems[0])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=20), json_values, max_size=4))
def test_no_catalog_content_makes_the_registrar_fail(kernelspecs) -> None:
    found, problems = from_catalog(CatalogRow("data", "1", "/e/data", None, kernelspecs))
    assert len(found.kernels) + len(problems) == len(kernelspecs)


# What a pass does ------------------------------------------------------------------------------


def test_a_pass_writes_what_is_missing_and_a_second_one_nothing(root: Path) -> None:
    wanted = kernels(entry(), entry("old", "2026.1", python3=IPYKERNEL, bash=BASH))
    assert write(root, wanted).written == 3
    assert listed(root) == [
        DATA,
        "image/old/2026.1/kernels/conda-image-old-bash",
        "image/old/2026.1/kernels/conda-image-old-python3",
    ]
    again = write(root, wanted)
    assert (again.written, again.removed, again.failed) == (0, 0, {})


def test_people_may_read_it_whatever_the_umask(root: Path) -> None:
    before = os.umask(0o077)
    try:
        write(root, kernels(entry()))
    finally:
        os.umask(before)
    for path in (root / "image").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644)


def test_a_changed_kernel_is_written_again(root: Path) -> None:
    write(root, kernels(entry()))
    changed = kernels(entry(python3={**IPYKERNEL, "argv": ["python", "-X", "utf8"]}))
    assert write(root, changed).written == 1
    assert json.loads((root / DATA / "kernel.json").read_text()) == document(changed[0])


def test_the_folder_that_a_running_server_has_mounted_is_never_replaced(root: Path) -> None:
    write(root, kernels(entry()))
    mounted = os.open(root / "image/data/1", os.O_RDONLY)
    write(root, kernels(entry(python3=IPYKERNEL, bash=BASH)))
    write(root, kernels(entry(bash=BASH)))
    assert os.fstat(mounted).st_ino == (root / "image/data/1").stat().st_ino
    os.close(mounted)


def test_what_is_no_longer_in_the_catalog_is_removed_with_its_folders(root: Path) -> None:
    write(root, kernels(entry(), entry("data", "2"), entry("old")))
    changes = write(root, kernels(entry("data", "2")))
    assert changes.removed == 2
    assert listed(root) == ["image/data/2/kernels/conda-image-data-python3"]
    assert not (root / "image/old").exists()
    assert not (root / "image/data/1").exists()


def test_what_somebody_damaged_or_removed_is_put_right(root: Path) -> None:
    wanted = kernels(entry())
    write(root, wanted)
    file = root / DATA / "kernel.json"
    file.unlink()
    write(root, wanted)
    file.chmod(0o644)
    damaged = json.loads(file.read_text())
    file.write_text(json.dumps({**damaged, "argv": ["/bin/sh"]}))
    assert write(root, wanted).written == 1
    assert json.loads(file.read_text())["argv"][0] == "/opt/conda/envs/data/bin/python"


def foreign_kernel(folder: Path, document: object = IPYKERNEL) -> bytes:
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(document))
    return (folder / "kernel.json").read_bytes()


def test_kernels_of_others_are_never_removed(root: Path) -> None:
    write(root, kernels(entry("old")))
    marked_for_another = document(kernels(entry("other"))[0])
    foreign = {
        root / "image/old/1/kernels/conda-image-old-mine": IPYKERNEL,
        root / "image/old/1/kernels/by-hand": IPYKERNEL,
        root / "image/old/1/kernels/conda-image-old-copied": marked_for_another,
        root / "image/hand-made/1/kernels/conda-image-x": IPYKERNEL,
        root / "elsewhere/kernels/conda-image-x": IPYKERNEL,
    }
    before = {folder: foreign_kernel(folder, doc) for folder, doc in foreign.items()}
    (root / "image/notes.txt").write_text("keep")
    changes = write(root, [])
    assert changes.removed == 1
    assert not (root / "image/old/1/kernels/conda-image-old-python3").exists()
    assert {folder: (folder / "kernel.json").read_bytes() for folder in foreign} == before
    assert (root / "image/notes.txt").exists()


def test_a_file_that_somebody_added_to_our_kernel_stays(root: Path) -> None:
    write(root, kernels(entry()))
    (root / DATA / "logo-svg.svg").write_text("<svg/>")
    write(root, [])
    assert os.listdir(root / DATA) == ["logo-svg.svg"]


def test_a_foreign_kernel_under_our_name_is_told_and_not_overwritten(root: Path) -> None:
    before = foreign_kernel(root / DATA)
    changes = write(root, kernels(entry(), entry("fine")))
    told = changes.failed[("image", "data", "1"), "conda-image-data-python3"]
    assert "move it away" in str(told)
    assert (root / DATA / "kernel.json").read_bytes() == before
    assert (root / "image/fine/1/kernels/conda-image-fine-python3/kernel.json").exists()


@pytest.mark.parametrize(
    "linked",
    [
        "image/data",
        "image/data/1",
        "image/data/1/kernels",
        DATA,
        f"{DATA}/kernel.json",
    ],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_no_symlink_is_followed_for_writing_or_removing(
    root: Path, tmp_path: Path, linked: str, wanted: bool
) -> None:
    write(tmp_path / "victim", kernels(entry()))
    target = tmp_path / "victim" / linked
    link = root / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    before = {p: p.read_bytes() for p in (tmp_path / "victim").rglob("kernel.json")}
    changes = write(root, kernels(entry()) if wanted else [])
    assert {p: p.read_bytes() for p in (tmp_path / "victim").rglob("kernel.json")} == before
    assert len(changes.failed) == wanted


def test_a_named_pipe_in_a_kernels_place_does_not_stop_the_pass(root: Path) -> None:
    (root / DATA).mkdir(parents=True)
    os.mkfifo(root / DATA / "kernel.json")
    assert len(write(root, kernels(entry())).failed) == 1
    assert write(root, []).removed == 0


def test_a_root_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write(tmp_path / "file", [])


# Crashes ---------------------------------------------------------------------------------------


class Killed(BaseException):
    """As kill -9: nothing of ours catches it."""


CALLS = ("mkdir", "open", "rename", "replace", "unlink", "rmdir", "fchmod")


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Die just before the ``number``-th change of the disk."""
    count = [0]

    def dying(real):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] == number:
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    return count


def test_a_crash_at_any_step_shows_no_half_kernel_and_is_healed_by_the_next_pass(
    tmp_path: Path,
) -> None:
    old = kernels(entry(), entry("old", "1", python3=IPYKERNEL, bash=BASH))
    new = kernels(entry(python3={**IPYKERNEL, "argv": ["python", "-I"]}), entry("new"))
    whole = [json.loads(k.content) for found in old + new for k in found.kernels]
    step = 0
    while True:
        step += 1
        root = tmp_path / str(step)
        write(root, old)
        foreign = foreign_kernel(root / "image/old/1/kernels/by-hand")
        with pytest.MonkeyPatch.context() as patch:
            count = kill_at(patch, step)
            with suppress(Killed):
                write(root, new)
        finished = count[0] < step
        for file in (root / "image").rglob("kernel.json"):
            assert json.loads(file.read_text()) in whole or file.parent.name == "by-hand"
        assert write(root, new).failed == {}
        assert listed(root) == [
            DATA,
            "image/new/1/kernels/conda-image-new-python3",
            "image/old/1/kernels/by-hand",
        ]
        assert json.loads((root / DATA / "kernel.json").read_text()) == document(new[0])
        assert (root / "image/old/1/kernels/by-hand/kernel.json").read_bytes() == foreign
        assert os.listdir(root / ".staging") == []
        if finished:
            break
    assert step > 20
