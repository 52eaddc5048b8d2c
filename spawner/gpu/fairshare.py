"""Who comes next: Fair Tree (Slurm) over accounts and their people, with an entry penalty (Kueue).

Level fair share of an account among its siblings is ``shares / usage``, both normalised by the
sums over the siblings; infinite without usage, 0 without shares. All people of an account with a
higher one come before all people of an account with a lower one; within an account the same rule
orders its people. Accounts that tie are treated as one: their people are compared with each
other. A person charged to themselves (``user:alice``) is a leaf beside the accounts.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from spawner.gpu.limits import NO_QUOTA
from spawner.gpu.state import Quota, Subject

Request = TypeVar("Request")
Leaf = tuple[Subject, str]  # account and user


def shares_of(subject: Subject, quotas: Mapping[Subject, Quota]) -> float:
    """The weight of a subject among its siblings; 1 where nothing is said."""
    shares = quotas.get(subject, NO_QUOTA).shares
    return 1.0 if shares is None else shares


def level(shares: float, usage: float) -> float:
    """Level fair share, but for the sums over the siblings."""
    if shares <= 0:
        return 0.0
    return shares / usage if usage > 0 else math.inf


def _parent(account: Subject, user: str) -> bool:
    return account != f"user:{user}"


@dataclass
class _Node(Generic[Request]):
    """An account, or a person within one."""

    shares: float
    usage: float
    children: dict[str, _Node[Request]] = field(default_factory=dict)
    requests: list[tuple[float, str, Request]] = field(default_factory=list)  # a heap: oldest first
    sum_shares: float = 0.0
    sum_usage: float = 0.0

    @property
    def level(self) -> float:
        return level(self.shares, self.usage)

    def of_child(self, child: _Node[Request]) -> float:
        """The normalised level fair share of one of its people."""
        value = child.level
        if math.isinf(value) or not self.sum_shares:
            return value
        return value * self.sum_usage / self.sum_shares


class FairTree(Generic[Request]):
    """Requests in the order of fair share; what is taken is charged at once (entry penalty).

    Args:
        usage: decayed use by ``(account, user)``, in weighted GPU-seconds.
        quotas: for the shares.
    """

    def __init__(self, usage: Mapping[Leaf, float], quotas: Mapping[Subject, Quota]) -> None:
        self._quotas = quotas
        self._usage = usage
        self._accounts: dict[Subject, _Node[Request]] = {}
        # Among siblings that have nothing waiting the sums still count their use.
        for (account, user), used in usage.items():
            if user:
                self._leaf(account, user, used)

    def _leaf(self, account: Subject, user: str, used: float = 0.0) -> _Node[Request]:
        node = self._accounts.get(account)
        if node is None:
            node = _Node(
                shares_of(account, self._quotas), max(0.0, self._usage.get((account, ""), 0.0))
            )
            self._accounts[account] = node
        leaf = node.children.get(user)
        if leaf is None:
            shares = shares_of(f"user:{user}", self._quotas) if _parent(account, user) else 1.0
            leaf = node.children[user] = _Node(shares, max(0.0, used))
            node.sum_shares += shares
            node.sum_usage += leaf.usage
        return leaf

    def charge(self, account: Subject, user: str, seconds: float) -> None:
        """Count use that is not in the past yet."""
        leaf = self._leaf(account, user)
        leaf.usage += seconds
        self._accounts[account].usage += seconds
        self._accounts[account].sum_usage += seconds

    def ranks(self) -> dict[Leaf, int]:
        """Slurm's rank of every person: the higher, the sooner; people who tie share one."""
        leaves = [
            (node.level, node.of_child(leaf), account, user)
            for account, node in self._accounts.items()
            for user, leaf in node.children.items()
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
        heapq.heappush(self._leaf(account, user).requests, (age, name, request))

    def drain(self, penalty: Callable[[Request], float]) -> Iterable[Request]:
        """All requests in order; each is charged ``penalty`` as it is taken."""
        waiting = {
            account: {user: leaf for user, leaf in node.children.items() if leaf.requests}
            for account, node in self._accounts.items()
        }
        heap = [(-self._accounts[name].level, name) for name, people in waiting.items() if people]
        heapq.heapify(heap)
        while heap:
            best = heap[0][0]
            tied = []
            while heap and heap[0][0] == best:
                tied.append(heapq.heappop(heap)[1])
            account, user = min(
                ((name, user) for name in tied for user in waiting[name]),
                key=lambda leaf: self._next(*leaf),
            )
            node = self._accounts[account]
            leaf = node.children[user]
            request = heapq.heappop(leaf.requests)[2]
            self.charge(account, user, penalty(request))
            if not leaf.requests:
                del waiting[account][user]
            for name in tied:
                if waiting[name]:
                    heapq.heappush(heap, (-self._accounts[name].level, name))
            yield request

    def _next(self, account: Subject, user: str) -> tuple[float, float, str]:
        node = self._accounts[account]
        leaf = node.children[user]
        age, name, _ = leaf.requests[0]
        return (-node.of_child(leaf), age, name)
