"""Who comes next: Fair Tree (Slurm) over accounts and their people, with an entry penalty (Kueue).

Level fair share of an account among its siblings is ``shares / usage``, both normalised by the
sums over the siblings; infinite without usage, 0 without shares. All people of an account with a
higher one come before all people of an account with a lower one; within an account the same rule
orders its people. Accounts that tie are treated as one: their people are compared with each
other. A person charged to themselves (``user:alice``) is a leaf beside the accounts.

What a person used counts for them wherever they charge, whichever account it was charged to. Who
charges themselves and has used a team, too, stands where that is the least good for them: among
that team's people, or alone. So nobody comes sooner by charging themselves, and who used nothing
yet comes before everybody else who used their account.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

from commons.scopes import own_account
from spawner.gpu.policy.limits import NO_QUOTA
from spawner.gpu.policy.state import Quota, Subject

Request = TypeVar("Request")
Leaf = tuple[Subject, str]  # account and user
_Rank = tuple[float, float, str, str]


def shares_of(subject: Subject, quotas: Mapping[Subject, Quota]) -> float:
    """The weight of a subject among its siblings; 1 where nothing is said."""
    shares = quotas.get(subject, NO_QUOTA).shares
    return 1.0 if shares is None else shares


def level(shares: float, usage: float) -> float:
    """Level fair share, but for the sums over the siblings."""
    if shares <= 0:
        return 0.0
    return shares / usage if usage > 0 else math.inf


@dataclass(slots=True)
class _Person(Generic[Request]):
    """Somebody in an account who has something waiting."""

    user: str
    shares: float
    # A heap, the oldest first: its time, its name, and who is charged.
    requests: list[tuple[float, str, Subject, Request]] = field(default_factory=list)


@dataclass(slots=True)
class _Account(Generic[Request]):
    """An account in which something waits, and the people who wait."""

    name: Subject
    owner: str  # whose own account it is
    shares: float
    people: dict[str, _Person[Request]] = field(default_factory=dict)
    # A heap of the ranks of those who wait: levels only fall, so a rank that is not true any more
    # stands too far in front, never too far behind.
    waiting: list[_Rank] = field(default_factory=list)


class FairTree(Generic[Request]):
    """Requests in the order of fair share; what is taken is charged at once (entry penalty).

    Args:
        usage: decayed use by ``(account, user)``, in weighted GPU-seconds.
        quotas: for the shares.
    """

    def __init__(self, usage: Mapping[Leaf, float], quotas: Mapping[Subject, Quota]) -> None:
        self._quotas = quotas
        self._accounts: dict[Subject, _Account[Request]] = {}
        # All who used an account: among siblings that have nothing waiting their use counts, too.
        self._leaves: dict[Leaf, None] = {}
        self._used: dict[str, float] = {}  # by person, over all accounts: in each of them
        self._of_account: dict[Subject, float] = {}
        for leaf, used in usage.items():
            account, user = leaf
            if user:
                self._leaves[leaf] = None
                self._used[user] = self._used.get(user, 0.0) + max(0.0, used)
            else:
                self._of_account[account] = max(0.0, used)

    def charge(self, account: Subject, user: str, seconds: float) -> None:
        """Count use that is not in the past yet."""
        self._leaves[account, user] = None
        self._of_account[account] = self._of_account.get(account, 0.0) + seconds
        self._used[user] = self._used.get(user, 0.0) + seconds

    def _level(self, account: Subject, owner: str, shares: float | None = None) -> float:
        """Level fair share of an account; one's own has used what its owner did anywhere."""
        used = self._used.get(owner, 0.0) if owner else self._of_account.get(account, 0.0)
        return level(shares_of(account, self._quotas) if shares is None else shares, used)

    def _shares_in(self, account: Subject, user: str) -> float:
        own = own_account(user)
        return 1.0 if account == own else shares_of(own, self._quotas)

    def _normal(self, value: float, account: Subject) -> float:
        """The normalised level fair share of one of an account's people, whose level it is."""
        if math.isinf(value):
            return value
        people = self._people[account]
        shares = sum([self._shares_in(account, user) for user in people])
        if not shares:
            return value
        return value * sum([self._used.get(user, 0.0) for user in people]) / shares

    @cached_property
    def _people(self) -> dict[Subject, list[str]]:
        """Who used an account, or waits for it; nobody comes to it any more."""
        found: dict[Subject, list[str]] = {}
        for account, user in self._leaves:
            found.setdefault(account, []).append(user)
        return found

    def ranks(self) -> dict[Leaf, int]:
        """Slurm's rank of every person: the higher, the sooner; people who tie share one."""
        leaves = [
            (
                self._level(account, user if account == own_account(user) else ""),
                self._normal(
                    level(self._shares_in(account, user), self._used.get(user, 0.0)), account
                ),
                account,
                user,
            )
            for account, user in self._leaves
        ]
        leaves.sort(key=lambda leaf: (-leaf[0], -leaf[1], leaf[2], leaf[3]))
        ranks: dict[Leaf, int] = {}
        before: tuple[float, float] | None = None
        rank = 0
        for place, (of_account, of_user, account, user) in enumerate(leaves):
            if (of_account, of_user) != before:
                rank = len(leaves) - place
                before = (of_account, of_user)
            ranks[account, user] = rank
        return ranks

    def add(self, account: Subject, user: str, age: float, name: str, request: Request) -> None:
        """A request waits; among those of one person the oldest comes first, then by name."""
        self._leaves[account, user] = None
        self._used.setdefault(user, 0.0)
        requests = self._person(account, user).requests
        heapq.heappush(requests, (age, name, account, request))

    def _person(self, account: Subject, user: str) -> _Person[Request]:
        node = self._accounts.get(account)
        if node is None:
            owner = user if account == own_account(user) else ""
            shares = shares_of(account, self._quotas)
            node = self._accounts[account] = _Account(account, owner, shares)
        person = node.people.get(user)
        if person is None:
            person = node.people[user] = _Person(user, self._shares_in(account, user))
        return person

    def _stand(self) -> None:
        """Who charges themselves stands where that is the least good for them."""
        alone = {node.owner for node in self._accounts.values() if node.owner}
        places: dict[str, list[Subject]] = {}
        for account, user in self._leaves if alone else ():
            if user in alone:
                places.setdefault(user, []).append(account)
        for user, accounts in places.items():
            own = own_account(user)
            worst = max(
                accounts,
                key=lambda one: (-self._level(one, user if one == own else ""), one != own, one),
            )
            if worst != own:
                requests = self._person(own, user).requests
                there = self._person(worst, user).requests
                there += requests
                heapq.heapify(there)
                requests.clear()

    def _rank(self, person: _Person[Request]) -> _Rank:
        """The lowest comes first: by level, then the age of the oldest request, and its name."""
        request = person.requests[0]
        return (-level(person.shares, self._used[person.user]), request[0], request[1], person.user)

    def _first(self, node: _Account[Request]) -> _Rank:
        """The rank of who comes next in an account."""
        while True:
            rank = node.waiting[0]
            true = self._rank(node.people[rank[3]])
            if rank == true:
                return rank
            heapq.heapreplace(node.waiting, true)

    def drain(self, penalty: Callable[[Request], float]) -> Iterable[Request]:
        """All requests in order; each is charged ``penalty`` as it is taken."""
        self._stand()
        heap = []
        for name, node in self._accounts.items():
            node.waiting = [self._rank(one) for one in node.people.values() if one.requests]
            if node.waiting:
                heapq.heapify(node.waiting)
                heap.append((-self._level(name, node.owner, node.shares), name))
        heapq.heapify(heap)
        while heap:
            before, name = heap[0]
            node = self._accounts[name]
            now = -self._level(name, node.owner, node.shares)
            if before != now:
                # A person's own account: they were charged elsewhere meanwhile.
                heapq.heapreplace(heap, (now, name))
                continue
            tied = [heapq.heappop(heap)]
            while heap and heap[0][0] == before:
                tied.append(heapq.heappop(heap))
            if len(tied) > 1:
                node = self._accounts[min([name for _, name in tied], key=self._next)]
            person = node.people[self._first(node)[3]]
            _, _, charged, request = heapq.heappop(person.requests)
            self.charge(charged, person.user, penalty(request))
            if person.requests:
                heapq.heapreplace(node.waiting, self._rank(person))
            else:
                heapq.heappop(node.waiting)
            for _, name in tied:
                node = self._accounts[name]
                if node.waiting:
                    heapq.heappush(heap, (-self._level(name, node.owner, node.shares), name))
            yield request

    def _next(self, account: Subject) -> tuple[float, float, str]:
        """Where the first of an account stands among people of accounts that tie."""
        rank, age, name, _ = self._first(self._accounts[account])
        return -self._normal(-rank, account), age, name
