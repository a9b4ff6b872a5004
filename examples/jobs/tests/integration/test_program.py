"""The program as people start it: who submits, who works and who looks, as processes."""

from __future__ import annotations

import sys

import pytest

from testkit.forked import started_as_ever
from testkit.process import Process, ProcessFactory
from testkit.valkey import ValkeyServer
from testkit.wait import wait_until

COMMAND = [sys.executable, "-m", "examples.jobs"]


class Jobs:
    def __init__(self, processes: ProcessFactory, servers: list[ValkeyServer]) -> None:
        self.environment: dict[str, str | None] = {
            "JOBS_VALKEY": servers[0].url,
            "JOBS_LOCKS": ",".join(server.url for server in servers),
        }
        self._processes = processes

    def start(self, *words: str) -> Process:
        return self._processes([*COMMAND, *words], env=self.environment)

    def ask(self, *words: str) -> list[str]:
        process = self.start(*words)
        assert process.wait_exit() == 0, process.log
        return process.log.splitlines()


@pytest.fixture
def jobs(process_factory: ProcessFactory, servers: list[ValkeyServer]) -> Jobs:
    return Jobs(process_factory, servers)


def test_what_is_submitted_is_done_by_whoever_works(jobs: Jobs) -> None:
    for player, points in (("ada", "7"), ("bob", "3"), ("ada", "12"), ("ada", "9")):
        (job_id,) = jobs.ask("submit", player, points)
        assert job_id
    assert jobs.ask("show") == []
    workers = [jobs.start("work") for _ in range(2)]
    for worker in workers:
        worker.wait_output("working")
    wait_until(
        lambda: jobs.ask("show") == ["ada: 12, 3 games", "bob: 3, 1 games"], reason="all games to be counted"
    )
    for worker in workers:
        worker.terminate(expect_exit=0)


def test_worker_that_ends_leaves_no_lock_behind(jobs: Jobs, servers: list[ValkeyServer]) -> None:
    with started_as_ever():
        worker = jobs.start("work")
    worker.wait_output("working")
    # Somebody else has the lock on most servers: the job asks for it again and again, and has it on one.
    for server in servers[:2]:
        server.execute("SET", "lock:ada", "somebody")
    jobs.ask("submit", "ada", "7")
    wait_until(lambda: servers[0].execute("LLEN", "saq:jobs:active") == "1", reason="the job to be taken")
    worker.terminate(expect_exit=0)
    assert servers[2].execute("EXISTS", "lock:ada") == "0"


@pytest.mark.parametrize(
    ("change", "code", "names"),
    [
        ({"JOBS_VALKEY": None}, 2, "JOBS_VALKEY"),
        ({"JOBS_VALKEY": "nonsense"}, 2, "JOBS_VALKEY: nonsense"),
        ({"JOBS_LOCKS": "nonsense"}, 2, "JOBS_LOCKS: nonsense"),
        ({"JOBS_VALKEY": "redis://127.0.0.1:1/0"}, 1, "127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_named_and_ends_it(
    process_factory: ProcessFactory, change: dict[str, str | None], code: int, names: str
) -> None:
    usual: dict[str, str | None] = {"JOBS_VALKEY": "redis://127.0.0.1:1/0", "JOBS_LOCKS": None}
    program = process_factory([*COMMAND, "work"], env=usual | change)
    assert program.wait_exit() == code
    assert names in program.log
    assert "Traceback" not in program.log
