"""What is usual in each kind of directory, so that a site need not say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# How a person's groups are found: by asking for groups that have them as a member, level by
# level; by the memberOf of person and groups; or by Active Directory's rule for chains.
Membership = Literal["member", "memberof", "in-chain"]

_GROUPS = (
    "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup)"
    "(objectClass=groupOfURLs)(objectClass=group))"
)


@dataclass(frozen=True)
class Preset:
    """Defaults of the settings with the same names."""

    user_filter: str
    name_attribute: str
    id_attribute: str
    display_name_attribute: str
    group_filter: str
    group_membership: Membership


PRESETS: dict[str, Preset] = {
    "openldap": Preset(
        user_filter="(uid={login})",
        name_attribute="uid",
        id_attribute="entryUUID",
        display_name_attribute="cn",
        group_filter=_GROUPS,
        group_membership="member",
    ),
    # objectCategory is indexed and single-valued; computers are users too, but not persons.
    "active-directory": Preset(
        user_filter="(&(objectCategory=person)(objectClass=user)"
        "(|(sAMAccountName={login})(userPrincipalName={login})))",
        name_attribute="sAMAccountName",
        id_attribute="objectGUID",
        display_name_attribute="displayName",
        group_filter="(objectClass=group)",
        group_membership="in-chain",
    ),
    "freeipa": Preset(
        user_filter="(&(objectClass=posixAccount)(uid={login}))",
        name_attribute="uid",
        id_attribute="ipaUniqueID",
        display_name_attribute="cn",
        group_filter="(objectClass=ipaUserGroup)",
        group_membership="memberof",
    ),
    "389-ds": Preset(
        user_filter="(uid={login})",
        name_attribute="uid",
        id_attribute="nsUniqueId",
        display_name_attribute="cn",
        group_filter=_GROUPS,
        group_membership="memberof",
    ),
}
