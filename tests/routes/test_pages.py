"""The files of the page and of the documentation viewers."""

from tests.scripted_jobs import Api


def test_the_page_is_packed_on_the_way(api: Api) -> None:
    """For whoever takes it so."""
    for path in ("/", "/docs", "/static/app.js"):
        assert api.http.get(path).headers["content-encoding"] == "gzip"
        plain = api.http.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
