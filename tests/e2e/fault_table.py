"""The fault table: kept as JSON while the cells are run, in as many runs as one likes, and written
as Markdown.

    python -m tests.e2e.fault_table docs/faults.md     puts the last table into the page
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.e2e.kills import PHASES, VICTIMS, Outcome

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / ".soak/faults.json"
BEGIN, END = "<!-- made by `make soak` -->\n", "<!-- end -->\n"


def keep(outcome: Outcome, table: Path = TABLE) -> None:
    """Put a cell into the table, in place of an older one of the same kill."""
    cells = {(cell.victim, cell.phase): cell for cell in load(table)}
    cells[outcome.victim, outcome.phase] = outcome
    table.parent.mkdir(exist_ok=True)
    table.write_text(json.dumps([asdict(cell) for cell in cells.values()], indent=1) + "\n")
    table.with_suffix(".md").write_text(markdown(list(cells.values())))


def load(table: Path = TABLE) -> list[Outcome]:
    if not table.is_file():
        return []
    return [Outcome(**cell) for cell in json.loads(table.read_text())]


def markdown(cells: list[Outcome]) -> str:
    """Return the sums, and a table of the seconds to recover, the attempts in brackets."""
    by_kill = {(cell.victim, cell.phase): cell for cell in cells}
    header = [
        ["killed", *PHASES, "the door answers after"],
        ["---"] * (len(PHASES) + 2),
    ]
    lines = [f"| {' | '.join(row)} |" for row in header + [_row(v, by_kill) for v in VICTIMS]]
    sums = {
        name: sum(getattr(cell, name) for cell in cells)
        for name in ("jobs", "lost", "twice", "left_over")
    }
    return (
        f"{len(cells)} kills, {sums['jobs']} jobs. Jobs lost: **{sums['lost']}**. Jobs with two "
        f"`completed` transitions or two files: **{sums['twice']}**. Half-written files and "
        f"reservations left: **{sums['left_over']}**.\n\n" + "\n".join(lines) + "\n"
    )


def _row(victim: str, by_kill: dict[tuple[str, str], Outcome]) -> list[str]:
    found = [by_kill.get((victim, phase)) for phase in PHASES]
    cells = [f"{cell.recover_s:.1f} s ({cell.attempts})" if cell else "-" for cell in found]
    doors = sorted(cell.door_s for cell in found if cell)
    return [victim, *cells, f"{doors[0]:.1f} to {doors[-1]:.1f} s" if doors else "-"]


def put_into(page: Path, table: Path = TABLE) -> None:
    """Replace what stands between the page's two marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{markdown(load(table))}\n{END}{after}")


if __name__ == "__main__":
    put_into(Path(sys.argv[1]))
