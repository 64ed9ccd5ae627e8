"""`/v1/videos/{id}/pin`: what old videos are removed around."""

import pytest

from tests.scripted_jobs import Api, form


def test_a_video_is_pinned_and_unpinned(api: Api) -> None:
    """Each answers with the video as it is then; twice is as good as once."""
    api.http.post("/generate", data=form())
    url = f"/v1/videos/{api.jobs.last.id}"
    for method, pinned in (("PUT", True), ("PUT", True), ("DELETE", False), ("DELETE", False)):
        answer = api.http.request(method, f"{url}/pin")
        assert (answer.status_code, answer.json()["pinned"]) == (200, pinned)
        assert api.http.get(url).json()["pinned"] is pinned


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_pin_needs_a_video(api: Api, method: str) -> None:
    """OpenAI's error object, like every other unknown video."""
    answer = api.http.request(method, "/v1/videos/video_unknown/pin")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
