"""Whose turn it is."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from deployments.core.fair_share import FairShare


@dataclass(frozen=True)
class Job:
    number: int
    caller: str


def jobs(callers: str) -> list[Job]:
    """A waiting job for each letter, which is its caller, in the order in which they came."""
    return [Job(number, caller) for number, caller in enumerate(callers, start=1)]


def shown(order: list[Job]) -> str:
    return " ".join(f"{job.caller}{job.number}" for job in order)


def test_without_keys_the_oldest_job_goes_first() -> None:
    """All jobs are one caller's."""
    waiting = [Job(number, "") for number in (3, 1, 2)]
    assert [job.number for job in FairShare().order(waiting, 1)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("waiting", "running", "served", "lanes", "order"),
    [
        ("aaab", "", "", 1, "a1 b4 a2 a3"),
        ("aaab", "a", "", 1, "b4 a1 a2 a3"),
        ("aabbcc", "", "", 1, "a1 b3 c5 a2 b4 c6"),
        ("aabbcc", "", "cab", 1, "c5 a1 b3 c6 a2 b4"),
        ("abbb", "aa", "", 2, "b2 a1 b3 b4"),
        ("bbba", "aa", "", 3, "b1 a4 b2 b3"),
        ("ccab", "", "", 1, "c1 a3 b4 c2"),
    ],
)
def test_the_order_is_the_rule_applied_again_and_again(
    waiting: str, running: str, served: str, lanes: int, order: str
) -> None:
    """Fewest running, then served longest ago, then the oldest job."""
    share = FairShare(list(served))
    for number, caller in enumerate(running):
        share.began(f"running {number}", caller)
    assert shown(share.order(jobs(waiting), lanes)) == order


@pytest.mark.parametrize("seed", range(5))
def test_jobs_start_in_the_order_that_was_shown(seed: int) -> None:
    """While running jobs end in the order in which they began, and nothing new comes."""
    rng = random.Random(seed)
    lanes = rng.choice([1, 1, 2, 3])
    share, ran = FairShare(), []
    waiting = jobs("".join(rng.choice("abcde") for _ in range(40)))
    promised = share.order(waiting, lanes)
    running: list[int] = []
    while waiting:
        if len(running) == lanes:
            share.ended(str(running.pop(0)))
        job = share.next(waiting)
        waiting.remove(job)
        share.began(str(job.number), job.caller)
        running.append(job.number)
        ran.append(job)
    assert ran == promised


def test_nobody_starves_behind_callers_who_always_have_more() -> None:
    """Each of four gets a quarter of the turns, however many jobs the others hand in."""
    share, number = FairShare(), 0
    waiting: list[Job] = []
    turns: Counter[str] = Counter()
    for _ in range(400):
        for caller in "aaabbc":  # these never stop
            number += 1
            waiting.append(Job(number, caller))
        if not any(job.caller == "d" for job in waiting):
            number += 1
            waiting.append(Job(number, "d"))
        job = share.next(waiting)
        waiting.remove(job)
        share.began("now", job.caller)
        share.ended("now")
        turns[job.caller] += 1
    assert turns == Counter(dict.fromkeys("abcd", 100))


def test_a_thousand_waiting_jobs_are_ordered_in_a_moment() -> None:
    """The order is asked for whenever somebody looks at a queue."""
    waiting = jobs("".join(random.Random(0).choice("abcdefghij") for _ in range(1000)))
    assert len(FairShare().order(waiting, 4)) == 1000
