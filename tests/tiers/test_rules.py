"""Who may what where, which numbers containers get, and what a builder may touch: pure rules."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.site import Environments, Site, SiteFileError
from spawner.environments import errors
from spawner.errors import BadRequest, NotAllowed
from spawner.tiers import said
from spawner.tiers.asking import named
from spawner.tiers.body import Account, BuilderSpec, Mount, builder_body
from spawner.tiers.condarc import condarc
from spawner.tiers.groups import group_ids, owners
from spawner.tiers.rights import check_change, may_change, may_see, person_of
from spawner.tiers.tier import IMAGE, SHARED, Kind, Tier, check_name, parse_source
from spawner.tiers.usage import versions_used

VISION, ML = Tier(Kind.TEAM, "vision"), Tier(Kind.COURSE, "ml101")
MINE = Tier(Kind.PERSONAL, "alice")
MEMBER = person_of("alice", False, ["team:vision"])
LEAD = person_of("bob", False, ["team:vision", "team:vision:leads"])
OTHER = person_of("dan", False, ["course:ml101:instructors"])
ADMIN = person_of("carol", True, [])


@pytest.mark.parametrize(
    ("tier", "see", "change"),
    [
        (VISION, [MEMBER, LEAD, ADMIN], [LEAD]),
        (ML, [OTHER, ADMIN], [OTHER]),
        (SHARED, [MEMBER, LEAD, OTHER, ADMIN], [ADMIN]),
        (IMAGE, [MEMBER, LEAD, OTHER, ADMIN], [ADMIN]),
        (MINE, [MEMBER, ADMIN], [MEMBER]),
    ],
)
def test_who_sees_and_who_changes_a_tier(
    tier: Tier, see: list[object], change: list[object]
) -> None:
    people = [MEMBER, LEAD, OTHER, ADMIN]
    assert [who for who in people if may_see(who, tier)] == see
    assert [who for who in people if may_change(who, tier)] == change


def test_a_refusal_says_who_may() -> None:
    with pytest.raises(NotAllowed, match="“team-vision” are changed by its leads"):
        check_change(MEMBER, VISION)


def test_a_team_with_a_name_like_a_group_of_leads_gives_no_rights() -> None:
    assert person_of("eve", False, ["team:vision:leads:x", "course:a:b", "team:"]).teams == {
        "": "member"
    }


@pytest.mark.parametrize(
    "name",
    ["", "..", "a/b", "../a", "A", "a b", "a\n", ".a", "-a", "a-", "a--b", "a" * 65, 3, None, "é"],
)
def test_names_that_could_be_paths_or_options_are_refused(name: object) -> None:
    with pytest.raises(BadRequest):
        check_name(name)


@given(st.text(max_size=80))
def test_whatever_is_asked_for_a_source_leads_below_its_own_folder_or_nowhere(text: str) -> None:
    try:
        tier = parse_source(text, "alice")
    except BadRequest:
        return
    if tier != IMAGE:
        assert ".." not in tier.folder.parts
        assert tier.folder.parts[0] in ("homes", "teams", "courses", "shared")
        assert len(tier.folder.parts) <= 2


def _site(**teams: dict[str, object]) -> Site:
    return Site.model_validate(
        {
            "version": 1,
            "directory": {
                "servers": ["ldaps://d.example.org"],
                "users": {"base_dn": "dc=x"},
                "teams": teams,
                "courses": {"ml101": {}},
            },
            "sizes": {"small": {"cpu": 1, "memory": "1G"}},
        }
    )


def test_containers_get_the_numbers_of_what_one_belongs_to_and_leads_one_more() -> None:
    site = _site(vision={"gid": 21001, "leads_gid": 21002}, bio={"gid": 22001, "leads_gid": 22002})
    assert group_ids(site, MEMBER) == (21001,)
    assert group_ids(site, LEAD) == (21001, 21002)
    assert group_ids(site, ADMIN) == ()


def test_without_numbers_in_the_site_file_each_team_has_two_of_its_own() -> None:
    found = owners(_site(vision={}, bio={}))
    numbers = [number for pair in found.values() for number in (pair.members, pair.leads)]
    assert len(set(numbers)) == len(numbers) == 6
    assert all(1_900_000_000 <= number < 2**31 for number in numbers)
    assert found == owners(_site(vision={}, bio={}))


def test_two_teams_with_one_number_are_refused_as_each_would_see_the_others_files() -> None:
    with pytest.raises(SiteFileError, match=r"21001 .*team-vision.*team-bio|21001 .*team-bio.*"):
        owners(_site(vision={"gid": 21001}, bio={"gid": 21001}))


def test_a_builder_has_one_persons_numbers_and_nothing_else() -> None:
    spec = BuilderSpec(
        "site", "j1", "sha256:x", Account(20002, 21001, (20000, 0)), "/data/builds/j1",
        2.0, 2**30, mounts=[Mount("/data/teams/vision", "/opt/labcommons/teams/vision", False)],
    )  # fmt: skip
    host = (body := builder_body(spec))["HostConfig"]
    assert body["User"] == "20002:21001"
    assert host["GroupAdd"] == ["20000"]
    assert host["CapDrop"] == ["ALL"]
    assert host["ReadonlyRootfs"] is True
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert [mount["Source"] for mount in host["Mounts"]] == [
        "/data/builds/j1",
        "/data/teams/vision",
    ]
    assert [mount["ReadOnly"] for mount in host["Mounts"]] == [True, False]
    assert "docker.sock" not in json.dumps(body)
    with pytest.raises(ValueError, match="root"):
        builder_body(BuilderSpec("s", "j", "i", Account(0, 1), "/f", 1, 1))


def test_a_kernel_that_runs_from_an_environment_makes_it_used() -> None:
    commands = [
        "/opt/labcommons/teams/vision/envs/py/bin/python -m ipykernel_launcher -f x",
        "/opt/labcommons/teams/vision/envs/.versions/py/20261121-aa/bin/python train.py",
        "/opt/labcommons/teams/vision/envs/pyx/bin/python",
        "vi /home/alice/.conda/envs/py/x",
    ]
    assert versions_used(VISION, "py", commands) == {"", "20261121-aa"}
    assert versions_used(MINE, "py", commands) == {""}
    assert versions_used(VISION, "p", commands) == set()


def test_a_spec_is_renamed_without_moving_its_lines() -> None:
    text = "# mine\nname: theirs # x\ndependencies:\n  - name: 3\n"
    assert named(text, "ours") == "# mine\nname: ours\ndependencies:\n  - name: 3\n"
    assert named("channels: []\n", "ours") == "channels: []\n"


def test_the_condarc_knows_mirrors_packages_and_the_folders_one_sees() -> None:
    settings = Environments(
        mirrors={
            "conda-forge": ["https://mirror.example.org/conda/conda-forge"],
            "lab": ["https://files.example.org/a"],
        }
    )
    text = condarc(settings, MEMBER.tiers)
    found = dict(line.split(": ", 1) for line in text.splitlines())
    assert json.loads(found["custom_channels"]) == {
        "conda-forge": "https://mirror.example.org/conda"
    }
    assert json.loads(found["custom_multichannels"]) == {"lab": ["https://files.example.org/a"]}
    assert json.loads(found["pkgs_dirs"]) == ["~/.conda/pkgs", "/opt/labcommons/pkgs"]
    assert json.loads(found["envs_dirs"]) == [
        "/home/alice/.conda/envs",
        "/opt/labcommons/teams/vision/envs",
        "/opt/labcommons/shared/envs",
        "/opt/conda/envs",
    ]


def test_what_a_build_says_is_translated_only_where_the_catalogue_has_it() -> None:
    def german(text: str) -> str:
        return {"installing {count} conda packages": "{count} Pakete von conda"}.get(text, text)

    known = said.said("installing {count} conda packages", {"count": 31})
    assert said.in_words(known, german) == "31 Pakete von conda"
    # Of a builder, which is a person's: nothing of it is taken for a format.
    for text in ("{count:>999999999}", "{count.__class__}", "something else", "", None, ["x"]):
        assert said.in_words(said.said(text, {"count": 31}), german) is None
    assert said.in_words(said.said("installing {count} conda packages", "x"), german) is None
    kept = said.said("x" * 9999, {str(number): "y" * 9999 for number in range(99)})
    assert kept is not None
    assert (len(kept["text"]), len(kept["values"]), len(kept["values"]["0"])) == (400, 8, 400)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.LockError("x"), "lock"),
        (errors.PolicyError("x"), "policy"),
        (errors.SpecError("x"), "spec"),
        (errors.ChannelError("x"), "channel"),
        (errors.ExportError("x"), "build"),
        (OSError("x"), "disk"),
    ],
)
def test_a_failure_is_of_a_kind_that_says_what_to_do(error: Exception, kind: str) -> None:
    assert said.kind_of(error) == kind
    assert kind in said.FAILURES
