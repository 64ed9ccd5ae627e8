"""The fault table, and the page that shows one."""

from pathlib import Path

from tests.e2e import fault_table
from tests.e2e.kills import PHASES, VICTIMS, Outcome


def outcome(victim: str, phase: str, **changes: int) -> Outcome:
    values = {"jobs": 2, "lost": 0, "twice": 0, "left_over": 0, "attempts": 1} | changes
    return Outcome(victim, phase, **values, door_s=0.5, recover_s=2.25)


def test_cells_of_several_runs_make_one_table(tmp_path: Path) -> None:
    """A kill that is made again replaces its older cell; what is not run yet shows as a dash."""
    table = tmp_path / "soak/faults.json"
    for cell in (outcome("jobs", "decode", lost=1), outcome("model", "queued", attempts=2)):
        fault_table.keep(cell, table)
    fault_table.keep(outcome("jobs", "decode"), table)
    shown = table.with_suffix(".md").read_text()
    assert "2 kills, 4 jobs. Jobs lost: **0**." in shown
    assert "| model | 2.2 s (2) | - | - | - | - | 0.5 to 0.5 s |" in shown
    assert "| jobs | - | - | - | 2.2 s (1) | - | 0.5 to 0.5 s |" in shown


def test_the_table_is_put_between_the_marks_of_a_page(tmp_path: Path) -> None:
    """The rest of the page stays; a second time replaces the first."""
    table, page = tmp_path / "faults.json", tmp_path / "page.md"
    page.write_text(f"before\n{fault_table.BEGIN}{fault_table.END}after\n")
    for lost in (1, 0):
        fault_table.keep(outcome("jobs", "decode", lost=lost), table)
        fault_table.put_into(page, table)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("Jobs lost") == text.count("Jobs lost: **0**") == 1


def test_the_page_shows_every_kill_and_no_lost_job() -> None:
    """The published table is of a whole matrix."""
    page = (fault_table.ROOT / "docs/faults.md").read_text()
    table = page.partition(fault_table.BEGIN)[2].partition(fault_table.END)[0]
    assert f"{len(VICTIMS) * len(PHASES)} kills" in table
    assert "Jobs lost: **0**" in table
    assert "two files: **0**" in table
