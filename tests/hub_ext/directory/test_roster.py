"""Whom the lines of a class roster mean, asked of a real slapd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.directory.client import Directory
from hub_ext.directory.entry import Entry
from hub_ext.directory.errors import DirectoryUnavailable
from hub_ext.directory.roster import Asked, Fit, Match, Roster
from hub_ext.directory.settings import DirectoryServer, DirectorySettings
from rig.slapd import PEOPLE, SERVICE_DN, SUFFIX, Slapd, person, record

pytestmark = pytest.mark.ldap

# More than the rig's slapd hands out at once.
CLASS = 600
WEI = "学号-张伟-7"
FAR_PAST = "20200101000000Z"


def student(number: int) -> str:
    return person(f"u{number:04}", 30000 + number, ("employeeNumber", f"S{number:06}"))


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """A directory with a class, and with people whom a roster may mean twice or in vain."""
    shared = ("mail", "office@lab.test")
    more = [
        *(student(number) for number in range(CLASS)),
        person("erika", 20501, shared, ("employeeNumber", "77")),
        person("frank", 20502, shared),
        person("wei", 20503, ("employeeNumber", WEI)),
        person("gone", 20504),
        person("held", 20505),
        person("jürgen", 20506, ("employeeNumber", "Jürgen 1")),
        *(
            person(f"lot{number:03}", 20600 + number, ("mail", "lot@lab.test"))
            for number in range(150)
        ),
        # It has an address, and nobody logs in with it.
        record(
            f"cn=list,{PEOPLE}",
            "inetOrgPerson",
            ("cn", "list"),
            ("sn", "x"),
            ("mail", "wei@lab.test"),
        ),
    ]
    folder = tmp_path_factory.mktemp("school")
    with Slapd(folder / "slapd", overlays=["ppolicy"], more=more) as slapd:
        for name, change in [
            ("gone", f"pwdEndTime: {FAR_PAST}"),
            ("held", "pwdReset: TRUE"),
        ]:
            attribute = change.partition(":")[0]
            slapd.modify(
                f"dn: uid={name},{PEOPLE}\nchangetype: modify\nreplace: {attribute}\n{change}\n"
            )
        yield slapd


@pytest.fixture
def hub(directory, school) -> Directory:
    return directory(school)


def found(*names: str) -> Match:
    return Match(Fit.FOUND, names)


UNKNOWN = Match(Fit.UNKNOWN)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (Asked("alice"), found("alice")),
        (Asked(mail="alice@lab.test"), found("alice")),
        (Asked(number="77"), found("erika")),
        (Asked("erika", "erika@lab.test", "77"), found("erika")),
        # As the directory compares, and as the hub writes.
        (Asked("MIXEDcase"), found("mixedcase")),
        (Asked(" Alice\N{ZERO WIDTH SPACE} "), found("alice")),
        (Asked(mail="Alice@LAB.test"), found("alice")),
        (Asked(number="s000007"), found("u0007")),
        # What nobody has says nothing, where the rest does.
        (Asked("matriculation-7", "alice@lab.test"), found("alice")),
        (Asked("alice", "elsewhere@lab.test", "none"), found("alice")),
        (Asked("nobody", "nobody@lab.test", "0"), UNKNOWN),
        (Asked(), UNKNOWN),
        (Asked("x" * 300, "\0"), UNKNOWN),
        # Two people with one address; a name or a number tells them apart.
        (Asked(mail="office@lab.test"), Match(Fit.AMBIGUOUS, ("erika", "frank"))),
        (Asked("frank", "office@lab.test"), found("frank")),
        (Asked(mail="office@lab.test", number="77"), found("erika")),
        # A name that two have lets neither in, whatever tells them apart.
        (Asked("double"), Match(Fit.AMBIGUOUS, ("double",))),
        (Asked("double", "double@lab.test"), Match(Fit.AMBIGUOUS, ("double",))),
        (Asked("bob", "alice@lab.test"), Match(Fit.CONFLICTING, ("bob", "alice"))),
        (Asked("bob", number="77"), Match(Fit.CONFLICTING, ("bob", "erika"))),
        (Asked(mail="bob@lab.test", number="77"), Match(Fit.CONFLICTING, ("bob", "erika"))),
        # There, and not for use here.
        (Asked("nonumber"), Match(Fit.UNUSABLE, ("nonumber",))),
        (Asked("rootlike"), Match(Fit.UNUSABLE, ("rootlike",))),
        (Asked("gone"), Match(Fit.UNUSABLE, ("gone",))),
        (Asked(mail="bad name@lab.test"), Match(Fit.UNUSABLE)),
        (Asked("twonames"), Match(Fit.UNUSABLE)),
        # A password to change keeps nobody off a roster.
        (Asked("held"), found("held")),
        # An address that a list has too.
        (Asked(mail="wei@lab.test"), found("wei")),
        # Other letters, in either way to write them.
        (Asked(number=WEI), found("wei")),
        (Asked("张伟"), Match(Fit.UNUSABLE)),
        (Asked(number="JU\N{COMBINING DIAERESIS}RGEN 1"), Match(Fit.UNUSABLE)),
        (Asked("m\N{LATIN SMALL LETTER U WITH DIAERESIS}ller"), Match(Fit.UNUSABLE)),
        (Asked("mueller", "müller@lab.test"), UNKNOWN),
    ],
    ids=str,
)
async def test_a_line_means_whom_the_directory_knows_by_it(hub, asked, match):
    assert await hub.find_people([asked]) == [match]


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "a*",
        "alice)(uid=*",
        "*)(|(uid=*",
        "\\2a",
        "alice\\",
        "(&)",
        "alice)\0",
        "uid=alice",
        "!",
    ],
)
async def test_nothing_in_a_roster_changes_what_is_asked(hub, text):
    lines = [Asked(text), Asked(mail=text), Asked(number=text), Asked("alice", text, text)]
    assert await hub.find_people(lines) == [UNKNOWN, UNKNOWN, UNKNOWN, found("alice")]


async def test_a_whole_school_is_found_in_its_order(hub):
    lines = [Asked(f"U{number:04}") for number in reversed(range(5000))]
    matches = await hub.find_people(lines, seconds=600)
    assert matches[-CLASS:] == [found(f"u{number:04}") for number in reversed(range(CLASS))]
    assert set(matches[:-CLASS]) == {UNKNOWN}


async def test_an_address_of_a_crowd_hides_nobody_who_is_asked_for_beside_it(hub):
    crowd, *others = await hub.find_people(
        [
            Asked(mail="lot@lab.test"),
            Asked("lot149", "lot@lab.test"),
            *(Asked(f"u{number:04}") for number in range(30)),
        ]
    )
    assert crowd.fit is Fit.AMBIGUOUS
    assert len(crowd.names) == 5
    assert others == [found("lot149"), *(found(f"u{number:04}") for number in range(30))]


async def test_the_site_says_which_attributes_count_and_an_empty_one_does_not(directory, school):
    lines = [Asked(mail="Erika Example"), Asked(number="77")]
    hub = directory(school, mail_attribute="cn", number_attribute="")
    assert await hub.find_people(lines) == [found("erika"), UNKNOWN]


async def test_names_are_written_as_at_login(directory, school):
    hub = directory(school, netbios_domain="LAB", name_domain="lab.test")
    lines = [Asked("LAB\\alice"), Asked("OTHER\\alice"), Asked("anna"), Asked("anna@lab.test")]
    assert await hub.find_people(lines) == [found("alice"), UNKNOWN, found("anna"), found("anna")]


async def test_whom_the_site_lets_not_log_in_is_unknown(directory, school):
    hub = directory(school, user_filter="(&(preferredLanguage=en)(uid={login}))")
    assert await hub.find_people([Asked("alice"), Asked("bob")]) == [found("alice"), UNKNOWN]


async def test_where_names_tell_the_dn_a_service_account_still_finds_people(directory, school):
    by_dn = {"user_dn_templates": (f"uid={{login}},{PEOPLE}",)}
    assert await directory(school, **by_dn).find_people([Asked("bob")]) == [found("bob")]
    alone = directory(school, **by_dn, bind_dn=None, bind_password_file=None)
    with pytest.raises(DirectoryUnavailable, match="bind_dn"):
        await alone.find_people([Asked("bob")])


async def test_without_an_answer_nobody_is_called_unknown(directory, own_slapd):
    hub = directory(own_slapd)
    assert await hub.find_people([Asked("bob")]) == [found("bob")]
    own_slapd.stop()
    with pytest.raises(DirectoryUnavailable):
        await hub.find_people([Asked("bob")])
    own_slapd.start()
    assert await hub.find_people([Asked("bob")]) == [found("bob")]


async def test_a_roster_ends_at_its_deadline(hub):
    with pytest.raises(DirectoryUnavailable, match="longer than 0 s"):
        await hub.find_people([Asked("bob")], seconds=0)
    assert await hub.find_people([Asked("bob")]) == [found("bob")]


async def test_a_server_that_refuses_a_search_without_index_does_not_rest(directory, tmp_path):
    slapd = Slapd(tmp_path / "limited")
    with (tmp_path / "limited" / "slapd.conf").open("a") as configuration:
        configuration.write(f'limits dn.exact="{SERVICE_DN}" size.unchecked=50\n')
    with slapd:
        hub = directory(slapd)
        with pytest.raises(DirectoryUnavailable, match=r"adminLimitExceeded.*index"):
            await hub.find_people([Asked(number="77")])
        # Refreshes are not patient: they would not ask one that rests.
        assert (await hub.lookup("alice")).name == "alice"


class Recorder:
    """Answers nothing, and keeps what is read."""

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.limits: set[int] = set()

    def search(self, base_dn, search_filter, attributes, *, limit, base_only=False):
        self.read |= set(attributes)
        self.limits.add(limit)
        return []


def test_no_more_is_read_than_is_needed():
    settings = DirectorySettings(
        PEOPLE, servers=(DirectoryServer("ldap.lab.test", 636, True),), server_type="openldap"
    )
    recorder = Recorder()
    roster = Roster([Asked("alice", mail="alice@lab.test")], settings)
    for terms in roster.batches:
        roster.search(recorder, terms)
    assert {"uid", "uidNumber", "gidNumber", "mail"} <= recorder.read
    assert max(recorder.limits) <= 100
    assert not recorder.read & {"cn", "employeeNumber", "preferredLanguage", "userPassword", "*"}


junk = st.lists(st.binary(max_size=12) | st.sampled_from([b"alice", b"Alice ", b"7"]), max_size=3)


@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(("uid", "mail", "uidnumber"), junk)), max_size=4)
)
def test_whatever_stands_in_entries_each_line_has_one_answer(entries):
    settings = DirectorySettings(PEOPLE, servers=(DirectoryServer("ldap.lab.test", 636, True),))
    roster = Roster([Asked("alice", "7"), Asked(mail="alice")], settings)
    matches = roster.matches(
        [Entry(f"uid={at},{SUFFIX}", attributes) for at, attributes in enumerate(entries)]
    )
    assert len(matches) == 2
    assert all(len(match.names) == 1 for match in matches if match.fit is Fit.FOUND)
    assert all(not match.names for match in matches if match.fit is Fit.UNKNOWN)
