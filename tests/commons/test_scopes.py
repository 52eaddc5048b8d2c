"""What follows from a row of the table of scopes, for every row and for one more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons import scopes
from commons.errors import BadRequest, NotAllowed
from commons.principal import Principal
from commons.rights import Action, can
from commons.scopes import IMAGE, SCOPES, SERVER_ROOT, SITE, Keeper, Scope, owners, parse_source
from commons.site import Builds, Environments, SiteFileError
from commons.store import Store
from commons.store.models import utcnow
from deploy.datadir import FOLDERS
from environments.builds import queue, repository, service
from environments.condarc import condarc
from hub_ext.console.environment_views import listing
from kernels.current import _SCOPES as PLACES
from kernels.service import page
from kernels.service.roots import find_roots
from kernels.sources import DEFAULT_SOURCES
from kernels.terminal import _ORDER
from spawner.gpu.policy.reasons import subject_name
from spawner.gpu.quotas.document import check_spec

from .scopes import KINDS, a_sixth_scope, site


@pytest.fixture(autouse=True)
def sixth() -> Iterator[None]:
    with a_sixth_scope():
        yield


def scope_of(kind: str) -> Scope:
    return Scope(kind, "" if SCOPES[kind].keeper is Keeper.SITE else "vision")


def people(scope: Scope) -> dict[str, Principal]:
    """One of each kind that a scope tells apart."""
    found = {"stranger": Principal("eve"), "admin": Principal("carol", admin=True)}
    for position in scope.row.positions:
        who = Principal(position.word, positions={scope: position.word})
        found["lead" if position.leads else "member"] = who
    if scope.keeper is Keeper.PERSON:
        found["owner"] = Principal(scope.owner)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_names_its_scope_and_no_other(kind: str) -> None:
    scope = scope_of(kind)
    assert parse_source(scope.source, "vision") == scope
    others = {one: scope_of(one).source for one in KINDS if one != kind}
    assert scope.source not in others.values()


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_one_of_its_own_and_at_a_fixed_place_in_servers(kind: str) -> None:
    scope = scope_of(kind)
    if not scope.has_folder:
        with pytest.raises(ValueError, match="not in a folder"):
            _ = scope.folder
        return
    assert len(scope.folder.parts) == (1 if scope.keeper is Keeper.SITE else 2)
    assert scope.folder.parts[-1] == (scope.owner or kind)
    if scope.keeper is not Keeper.PERSON:  # the kernels service looks there, too
        assert scope.mount == SERVER_ROOT / scope.folder
    assert scope.environments.is_relative_to(scope.mount)
    tops = [row.folder.partition("/")[0] for row in SCOPES.values() if row.folder]
    assert len(set(tops)) == len(tops)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hubs_groups_say_the_positions_that_gave_them(kind: str) -> None:
    scope = scope_of(kind)
    for position in scope.row.positions:
        groups = scopes.hub_groups({scope: position.word})
        assert groups
        assert scopes.positions_in({*groups, "staff"}) == {scope: position.word}
        assert all(scopes.is_ours(group.upper()) for group in groups)
    assert not scopes.is_ours("staff")


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_is_charged_to_one_scope(kind: str) -> None:
    scope = scope_of(kind)
    if scope.account:
        assert scopes.of_account(scope.account) == scopes.of_subject(scope.account) == scope
        assert scope in scopes.with_account("vision")
    else:
        assert scope not in scopes.with_account("vision")
    assert scopes.of_account("vision") is scopes.of_account(f"{kind}:") is None


@pytest.mark.parametrize("kind", KINDS)
def test_people_read_whose_it_is(kind: str) -> None:
    scope = scope_of(kind)
    named = scope.keeper is Keeper.GROUP
    for text in (scope.title(str), scope.phrase(str), scope.heading(str), scope.kernel_label):
        assert "{" not in text
        assert ("vision" in text) is named or text in ("vision", "")
    if scope.account:
        assert subject_name(scope.account, str) == scope.phrase(str)
    assert page._heading(scope.source, str) == scope.heading(str)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_all_that_rights_need(kind: str) -> None:
    scope = scope_of(kind)
    who = people(scope)

    def those(action: Action) -> set[str]:
        return {name for name, one in who.items() if can(one, action, scope)}

    everybody = set(who) if scope.keeper is Keeper.SITE else set()
    assert those(Action.USE) == (everybody or {"lead", "member", "owner"} & set(who))
    assert those(Action.SEE) == those(Action.USE) | {"admin"}
    assert those(Action.DELETE) == ({"admin"} if everybody else {"lead", "owner"} & set(who))
    assert those(Action.CHARGE) == (those(Action.USE) if scope.account else set())
    for name, one in who.items():
        assert (scope in one.scopes) is (name in those(Action.USE))
        assert (scope.account in one.accounts) is (name in those(Action.CHARGE))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_all_that_folders_and_kernels_need(kind: str, tmp_path: Path) -> None:
    scope = scope_of(kind)
    roots = {root.source: root for root in find_roots(tmp_path, [])}
    if scope.keeper is not Keeper.PERSON and scope.has_folder:
        (tmp_path / scope.folder).mkdir(parents=True)
        found = {root.source: root for root in find_roots(tmp_path, [])}[scope.source]
        assert (found.base, found.label) == (tmp_path / scope.folder, scope.kernel_label)
        assert found.folder == tmp_path / scope.folder / "envs"
    else:
        assert scope.source not in roots
    user = next(one for one in people(scope).values() if can(one, Action.USE, scope))
    text = condarc(Environments(), user.scopes)
    assert (str(scope.environments) in text) if scope.has_folder else True


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_has_two_numbers_of_its_own(kind: str) -> None:
    scope = scope_of(kind)
    there = site(teams={"vision": {}}, courses={"vision": {}}, cohorts={"vision": {}})
    if scope.keeper is not Keeper.GROUP:
        assert scope not in owners(there)
        return
    pair, who = owners(there)[scope], people(scope)
    named = {pair.members: scope.owner, pair.leads: f"{scope.owner}-leads"}
    assert who["member"].group_ids(there) == {pair.members: scope.owner}
    assert who["lead"].group_ids(there) == named
    assert who["admin"].group_ids(there) == who["stranger"].group_ids(there) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_auth_state_says_the_positions_by_the_rows_section(kind: str) -> None:
    scope = scope_of(kind)
    for position in scope.row.positions:
        state = {scope.row.section: {"vision": position.word, "bio": "boss"}}
        found = Principal.from_auth_state("x", False, state)
        assert found.positions == {scope: position.word}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cohort"])
def test_what_is_installed_alone_says_the_same_as_the_table(kind: str) -> None:
    """``kernels`` in users' images and ``deploy`` on the machine cannot read the table."""
    row, scope = SCOPES[kind], scope_of(kind)
    wild, first = Scope(kind, "*"), Scope(kind, "{1}")
    source = next(one for one in DEFAULT_SOURCES if one.id == first.source)
    assert source.label == first.kernel_label
    if row.folder:
        assert row.folder.partition("/")[0] in FOLDERS
        home = str(wild.environments).replace("/home/*", "~")
        assert source.pattern == f"{home}/*"
        path = f"{scope.environments}/py"
        source_of = next(start for pattern, start in PLACES if pattern.fullmatch(path))
        assert source_of.rstrip("-") == kind
    prefix = next(name for name in _ORDER if scope.source.startswith(name))
    assert prefix.rstrip("-") == kind


def test_a_subject_without_a_person_is_the_sites() -> None:
    for subject in scopes.SITE_SUBJECTS:
        assert scopes.of_subject(subject) == SITE
        check_spec(subject, {})
    assert scopes.of_subject("everybody") is None


@given(st.text(max_size=80))
def test_whatever_is_asked_for_a_source_leads_below_its_own_folder_or_nowhere(text: str) -> None:
    try:
        scope = parse_source(text, "alice")
    except BadRequest:
        return
    if scope != IMAGE:
        assert ".." not in scope.folder.parts
        assert len(scope.folder.parts) <= 2
        assert text == scope.source


_NEAR = st.sampled_from(["team:vision:leads:x", "course:a:b", "team:", "team:..", "team:a"])


@given(st.lists(st.text(max_size=30) | _NEAR))
def test_no_other_group_gives_a_position(groups: list[str]) -> None:
    given_ = scopes.positions_in(groups)
    assert all(scopes.hub_groups({scope: word}) & set(groups) for scope, word in given_.items())
    assert all(scopes.NAME.fullmatch(scope.owner) for scope in given_)


def test_without_numbers_in_the_site_file_each_group_has_two_of_its_own() -> None:
    found = owners(site(teams={"vision": {}, "bio": {}}, courses={"ml101": {}}))
    numbers = [number for pair in found.values() for number in (pair.members, pair.leads)]
    assert len(set(numbers)) == len(numbers) == 6
    assert all(1_900_000_000 <= number < 2**31 for number in numbers)
    # Folders that are there keep their groups.
    assert found[Scope("team", "vision")] == scopes.Owners(1932773880, 1910664814)


def test_two_teams_with_one_number_are_refused_as_each_would_see_the_others_files() -> None:
    with pytest.raises(SiteFileError, match=r"21001 .*team-vision.*team-bio|21001 .*team-bio.*"):
        owners(site(teams={"vision": {"gid": 21001}, "bio": {"gid": 21001}}))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_built_in_it_is_listed_for_its_people_alone(kind: str, tmp_path: Path) -> None:
    scope, limits = scope_of(kind), Builds()
    if not scope.has_folder:
        return
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.migrate()
    spec = "name: py\nchannels: [conda-forge]\ndependencies: [python]\n"
    facts = {
        "python": "3.13.5", "lock_digest": "ab", "size": 1, "spec": spec, "words": "", "lock": "",
        "packages": [], "kernels": {}, "findings": [], "origin": None, "exports": {},
    }  # fmt: skip
    store.transact(
        lambda s: repository.record(
            s, scope, "py", "1", built_by="bob", created_at=utcnow(), facts=facts, kept={"1"}
        )
    )
    for name, who in people(scope).items():
        found = store.transact(lambda s, who=who: listing(s, who, "en"), read=True)
        seen = [item["source"] for item in found] == [scope.source]
        # Another's personal environments are not in an administrator's list.
        admins = name == "admin" and scope.keeper is Keeper.PERSON
        assert seen is (bool(can(who, Action.SEE, scope)) and not admins)
        if can(who, Action.CREATE, scope):
            job = store.transact(
                lambda s, who=who, name=name: service.create(s, who, limits, scope, name, spec)
            )
            assert queue.scope_of(job) == scope
        else:
            with pytest.raises(NotAllowed):
                store.transact(lambda s, who=who: service.create(s, who, limits, scope, "py", spec))
    store.close()
