import pickle

import pytest

from deployments.core import errors
from deployments.core.errors import StoredError, VideoServiceError, error_classes

EXAMPLES: dict[type[VideoServiceError], tuple[object, ...]] = {
    errors.InvalidRequest: ("fps", "0 is less than 1"),
    errors.ConsentRequired: (),
    errors.ForeignOrigin: ("Origin", "http://evil.example"),
    errors.PayloadTooLarge: ("image", 2**20),
    errors.QueueFull: (100, 30),
    errors.Interrupted: (3,),
    errors.InsufficientVram: ("mochi", 6.0, 4.2, "It would fit with low_vram."),
    errors.InsufficientDisk: (500.0, 12.0),
}


def example(kind: type[VideoServiceError]) -> VideoServiceError:
    return kind(*EXAMPLES.get(kind, ("what went wrong",)))


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_crosses_a_process_border(kind: type[VideoServiceError]) -> None:
    """Replicas pickle their errors: class, sentence and code must survive."""
    error = example(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.status, copy.code) == (str(error), error.status, error.code)


def test_no_two_errors_share_a_code() -> None:
    """A stored code leads back to exactly one class."""
    codes = [kind.code for kind in error_classes()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_a_stored_error_has_the_status_of_its_class(kind: type[VideoServiceError]) -> None:
    """What the job table holds is answered like the error itself."""
    stored = StoredError(kind.code, "a sentence")
    assert (stored.status, str(stored)) == (kind.status, "a sentence")


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Each class stands in the module's picture with its status."""
    for kind in error_classes()[1:]:
        line = next(row for row in errors.__doc__.splitlines() if f"─ {kind.__name__} " in row)
        assert str(kind.status) in line


def test_insufficient_vram_speaks_the_documented_sentence() -> None:
    """The API reference gives this sentence word for word."""
    assert str(errors.InsufficientVram("mochi", 6.0, 4.2)) == (
        "Insufficient VRAM: mochi needs ~6.0GB, but only 4.2GB available."
    )
