from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.client import cli
from deployments.core.events import JobView
from deployments.core.loras import LoraFolder, LoraFolders
from deployments.ingress import create_app
from tests.scripted_jobs import MOCHI, OPENSORA, ScriptedJobs, served, service_config


class CountedJobs(ScriptedJobs):
    """Counts how often somebody asked how a job stands."""

    asked = 0

    async def get(self, job_id: str) -> JobView:
        self.asked += 1
        return await super().get(job_id)


@pytest.fixture
def jobs(tmp_path: Path) -> CountedJobs:
    """The service's jobs, which do as they are told."""
    jobs = CountedJobs(service_config(tmp_path), [MOCHI, OPENSORA])
    jobs.loras = LoraFolders({"mochi": LoraFolder(str(tmp_path), None)})
    return jobs


@pytest.fixture
def url(jobs: CountedJobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The service on a port of its own, which the command line finds; in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli, "POLL_S", 0.02)
    with served(create_app(jobs, jobs.config, jobs.cards, loras=jobs.loras)) as address:
        monkeypatch.setenv("VIDEO_SERVICE_URL", address)
        yield address
