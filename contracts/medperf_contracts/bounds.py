"""What a request may measure, and what a client may therefore put into one."""

from __future__ import annotations

BODY_BYTES_MOST = 1024 * 1024
BODY_DEPTH_MOST = 32
# A file of numbers that a container wrote, as JSON inside a body: a site must learn at once that it cannot be
# sent. Half a megabyte holds tens of thousands of scores.
REPORT_BYTES_MOST = BODY_BYTES_MOST // 2
REPORT_DEPTH_MOST = BODY_DEPTH_MOST - 8
