"""Which folders a person is told of, and gets."""

from __future__ import annotations

import pytest

from commons.principal import Principal
from commons.scopes import owners
from commons.site import Mount, Site, SiteFileError
from spawner.folders import folders_of
from spawner.settings.values import chosen_mounts


@pytest.fixture
def lab(site: Site) -> Site:
    document = site.model_dump(mode="json", exclude_defaults=True)
    document["directory"]["courses"] = {"ml101": {"students": ["s"], "instructors": ["i"]}}
    document["directory"]["teams"] = {"vision": {"members": ["v"]}}
    document["servers"] = {
        "mounts": {
            "imagenet": {
                "source": "/srv/sets/imagenet",
                "target": "/data/imagenet",
                "title": {"en": "ImageNet, 2012", "zh_CN": "ImageNet 数据集"},
            },
            "scratch": {
                "source": "/srv/scratch",
                "target": "/scratch",
                "read_only": False,
                "writers": ["team-vision"],
            },
            "plans": {"source": "/srv/plans", "target": "/plans", "only_for": ["team-vision"]},
        }
    }
    return Site.model_validate(document)


def person(**positions: dict[str, str]) -> Principal:
    return Principal.from_auth_state("alice", False, positions)


def found(who: Principal, lab: Site, lang: str = "en") -> dict[str, tuple[str, bool]]:
    scopes = [scope.source for scope in who.scopes]
    mounts = chosen_mounts(lab.servers.mounts, (), scopes)
    return {
        one["path"]: (one["title"], one["writable"])
        for one in folders_of(who, lab, mounts, lang, str)
    }


def test_each_is_told_what_is_theirs_and_whether_they_may_write(lab: Site) -> None:
    everybody = {"/data/imagenet": ("ImageNet, 2012", False), "/scratch": ("scratch", False)}
    assert found(person(), lab) == everybody
    assert found(person(teams={"vision": "member"}), lab) == {
        "~/shared/team-vision": ("Team vision", True),
        **everybody,
        "/scratch": ("scratch", True),
        "/plans": ("plans", False),
    }
    student, instructor = (person(courses={"ml101": word}) for word in ("student", "instructor"))
    assert found(student, lab)["~/shared/course-ml101"] == ("Course ml101", False)
    assert found(instructor, lab)["~/shared/course-ml101"] == ("Course ml101", True)
    assert found(person(), lab, "zh_CN")["/data/imagenet"][0] == "ImageNet 数据集"


def test_what_is_asked_for_by_somebody_whom_it_is_not_for_is_not_given(lab: Site) -> None:
    assert "plans" not in chosen_mounts(lab.servers.mounts, ["plans"], ["team-other"])
    assert "plans" in chosen_mounts(lab.servers.mounts, ["plans"], ["team-vision"])


@pytest.mark.parametrize("key", ["only_for", "writers"])
def test_who_does_not_exist_is_named(lab: Site, key: str) -> None:
    mount = {"source": "/srv/x", "target": "/x", "read_only": False, key: ["team-visoin"]}
    lab.servers.mounts["x"] = Mount.model_validate(mount)
    with pytest.raises(
        SiteFileError, match=r"servers\.mounts\.x: there is no 'team-visoin'; name so"
    ):
        owners(lab)


def test_writers_of_what_nobody_may_write_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="writers"):
        Mount(source="/srv/x", target="/x", writers=["team-vision"])
