"""The picture that a request under `/v1` brings: a file, or a data URL in its place."""

import base64
import binascii
import re
from collections.abc import Mapping

from deployments.core.errors import InvalidRequest
from deployments.core.images import TAKEN
from deployments.routes.body import Part, shown
from deployments.routes.form_reader import decoded
from deployments.routes.video_forms import REFERENCE, REFERENCE_URL

DATA_URL = re.compile(r"data:[^,]*;base64,(.*)", re.ASCII | re.DOTALL)


def image_bytes(files: Mapping[str, Part]) -> bytes | None:
    """Return the picture's file, which nobody has looked into yet; None when there is none.

    Raises: InvalidRequest.
    """
    if len(given := [files[name] for name in (REFERENCE, REFERENCE_URL) if name in files]) > 1:
        raise InvalidRequest(REFERENCE, "is sent twice: as a file and as a URL; send one")
    if not given:
        return None
    [part] = given
    if part.file_name is None:
        text = decoded(part)
        return _from_url(text, part.name) if text else None
    if not part.data and not part.file_name:
        return None
    if not part.data:
        raise InvalidRequest(part.name, f"the file is empty; send a {TAKEN} file")
    return part.data


def _from_url(text: str, field: str) -> bytes:
    found = DATA_URL.fullmatch(text)
    if found is None:
        raise InvalidRequest(
            field,
            f"{shown(text)} is neither a file nor a data URL (data:image/png;base64,...); this "
            "service fetches nothing from elsewhere",
        )
    try:
        return base64.b64decode(found[1], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(field, "the data URL is not well-formed base64") from None
