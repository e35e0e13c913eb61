"""The style of a result's page, and the hash that the page allows it by."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

STYLE = files("medperf").joinpath("report_page.css").read_text(encoding="utf-8")
# The page's only style is allowed by its hash: text that found a way into the page could not even bring a style.
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
