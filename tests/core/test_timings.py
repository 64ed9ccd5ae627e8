from pathlib import Path

from deployments.core.estimates import Amount, Setting, Timing
from deployments.core.job_store import JobStore
from deployments.core.timings import TimingStore

SETTING = Setting("mochi", "genmo/mochi-1-preview", "NVIDIA H200")
DECODE = Timing(SETTING, Amount("decode", "256x256x25", 1.0), 2.0)
DENOISE = Timing(SETTING, Amount("denoise", "256x256x25 2 steps", 1.0), 0.5, (0.6, 1.0), 3)


def test_timings_outlive_the_process(tmp_path: Path) -> None:
    """Beside the jobs; a newer one replaces that of the same shape."""
    url = f"sqlite:///{tmp_path}/jobs.sqlite3"
    JobStore(url).close()
    store = TimingStore(url)
    assert store.load() == []
    store.save([DECODE, DENOISE])
    newer = Timing(SETTING, DECODE.amount, 3.0, runs=2)
    store.save([newer])
    store.close()
    again = TimingStore(url)
    assert {timing.amount.phase: timing for timing in again.load()} == {
        "decode": newer,
        "denoise": DENOISE,
    }
    again.close()
