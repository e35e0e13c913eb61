"""What a process counts and measures, under the names that dashboards and alert rules use.

Labels are of few values: services, consumers, endpoints as the routes write them, refusals' codes. Never an ID.
Only a deployment's processes show them (`kernel/monitor.py`); elsewhere counting costs some microseconds.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# A series more for each one, which no rule or panel asks.
disable_created_metrics()  # type: ignore[no-untyped-call]

# A request is refused after 2 s of waiting; a publish given up after 20.
_ANSWER_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20)
# From a broker at rest to a message that waited for a person over a week-end.
_LAG_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 7200, 86400)

BUILD = Gauge(
    "medperf_build_info",
    "1, for each process: its service, whether it is the web process (run) or the worker (work), and its version.",
    ["service", "process", "version"],
)

REQUESTS = Counter(
    "medperf_requests",
    "Requests answered, by the answer's status and the code of the refusal (empty where there was none).",
    ["service", "endpoint", "status", "code"],
)
REQUEST_SECONDS = Histogram(
    "medperf_request_duration_seconds",
    "From a request's arrival at the service to its answer.",
    ["service", "endpoint"],
    buckets=_ANSWER_SECONDS,
)
SEEN_WAIT_SECONDS = Histogram(
    "medperf_seen_wait_seconds",
    "How long requests waited for news that their caller has seen; those that did not wait are not counted.",
    ["service"],
    buckets=(0.02, 0.05, 0.1, 0.25, 0.5, 1, 2),
)

RELAY_BATCHES = Counter(
    "medperf_relay_batches",
    "Batches of events given to the bus: published, partly (some of its events), failed (none).",
    ["service", "outcome"],
)
RELAY_EVENTS = Counter(
    "medperf_relay_events",
    "Events given to the bus: published, or failed, which are tried again.",
    ["service", "outcome"],
)
RELAY_CONFIRM_SECONDS = Histogram(
    "medperf_relay_confirm_seconds",
    "From giving a batch to the bus until all of it is confirmed or given up.",
    ["service"],
    buckets=_ANSWER_SECONDS,
)

INBOX_ATTEMPTS = Counter(
    "medperf_inbox_attempts",
    "Deliveries tried: handled, handled_before, waiting (for another thing), failed (tried again), dead, or held,"
    " where the consumer's database refuses.",
    ["consumer", "outcome"],
)
INBOX_ATTEMPT_SECONDS = Histogram(
    "medperf_inbox_attempt_seconds",
    "How long one try of a delivery took.",
    ["consumer"],
    buckets=_ANSWER_SECONDS,
)
EVENT_LAG_SECONDS = Histogram(
    "medperf_event_lag_seconds",
    "From recording an event to its effect, each by its database's clock.",
    ["consumer"],
    buckets=_LAG_SECONDS,
)

CONSUMER_CONNECTED = Gauge(
    "medperf_consumer_connected", "1 while the broker gives the consumer its messages, else 0.", ["consumer"]
)
MESSAGES_UNREADABLE = Counter(
    "medperf_messages_unreadable",
    "Messages that no envelope could be read from; they are in the broker's queue <consumer>.unreadable.",
    ["consumer"],
)

UNREADABLE_QUEUE_MESSAGES = Gauge(
    "medperf_unreadable_queue_messages",
    "Messages in the broker's queue <consumer>.unreadable: no events, or given to the consumer too often.",
    ["consumer"],
)

# Asked from the database at each scrape (`kernel/backlog.py`), so every process of a service shows the same.
DATABASE_UP = Gauge(
    "medperf_database_up", "1 if the service's database answered this scrape in time, else 0.", ["service"]
)
OUTBOX_EVENTS = Gauge(
    "medperf_outbox_events",
    "Events that the bus has not taken yet: waiting, or failed (tried, and tried again). Up to 10000.",
    ["service", "state"],
)
OUTBOX_OLDEST_SECONDS = Gauge(
    "medperf_outbox_oldest_age_seconds",
    "The age of the oldest event that the bus has not taken yet; 0 where there is none.",
    ["service"],
)
INBOX_MESSAGES = Gauge(
    "medperf_inbox_messages",
    "Messages without their effect yet: waiting (for another thing), or failed (tried again). Up to 10000.",
    ["consumer", "state"],
)
DEAD_LETTERS = Gauge(
    "medperf_dead_letters",
    "Messages that only a person can help: in, of a consumer's; out, of the service's own (no consumer).",
    ["service", "direction", "consumer"],
)

BATCH_OUTCOMES = ("published", "partly", "failed")
EVENT_OUTCOMES = ("published", "failed")
ATTEMPT_OUTCOMES = ("handled", "handled_before", "waiting", "failed", "dead", "held")
WAITING_STATES = ("waiting", "failed")
