"""Where each thing lies in the shared memory of the scoreboard. Numbers only; the Supervisor knows them too.

Words are 8 bytes, and are read and written as a whole. A change here is a change of VERSION.
"""

from __future__ import annotations

from django_prefork.histogram import SIZES, TIMES

VERSION = 2
MAGIC = 0x6B726F66657270  # "prefork"
WORD = 8

# -- the header: one page ----------------------------------------------------------------------------------------------
HEADER_BYTES = 4096
# Written by whoever starts the server (MAGIC to STARTED), by the Supervisor, by whoever takes a slot (HIGH), and under
# a lock by whoever buries a worker (ENDS, REASONS).
H_MAGIC, H_VERSION, H_SLOTS, H_STOPPING, H_RETIRED, H_HIGH, H_SUPERVISOR, H_STARTED, H_ENDS = range(9)
H_REASONS = 16
# What its Arbiter says of each generation, which nobody else does; the ninth takes the place of the first.
H_GENERATIONS = 32
GENERATIONS = 8
GENERATION_WORDS = 8
G_NUMBER, G_PID, G_TARGET, G_STAGE, G_BEGAN = range(5)
# A byte for each generation that did not boot, from here to the header's end.
FAILED_BYTES = 1024

# -- how workers ended: a ring, written under a lock -------------------------------------------------------------------
ENDS_AT = HEADER_BYTES
ENDS = 64
END_BYTES = 256
E_WHEN, E_SLOT, E_GENERATION, E_PID, E_REASON, E_TEXT_LENGTH = range(6)
END_TEXT = 64
END_TEXT_BYTES = END_BYTES - END_TEXT
#: Why a worker ended. The first five are troubles, the others were meant.
REASONS = (
    "crash",  # a signal of its own making, or an exit status that is not 0
    "killed",  # SIGKILL from outside: the kernel's OOM killer, mostly
    "timeout",  # of a request, of its boot, or of its leaving: killed by the server
    "memory",  # max_rss_hard: killed by the server
    "gone",  # exit status 0, unasked
    "expired",  # max_requests and its kin, or a request that had been late
    "reload",
    "scale",
    "stop",
)

# -- the last hour: what all counters were, step by step; a ring -------------------------------------------------------
HISTORY_AT = ENDS_AT + ENDS * END_BYTES
HISTORY = 128
HISTORY_BYTES = 4096
#: Seconds from one to the next.
HISTORY_STEP = 30.0

# -- the rows: one for each slot ---------------------------------------------------------------------------------------
ROWS_AT = HISTORY_AT + HISTORY * HISTORY_BYTES
ROW_BYTES = 5120
# More slots than workers, since a successor is ready before its predecessor leaves.
SLOTS = 1024

# By the Arbiter: before the fork, after the reap, and MEMORY every few seconds.
PID, GENERATION, BOOT_DEADLINE, BORN, SERVED_BEFORE, PRIVATE, SHARED, DUMPED, DUMP_LENGTH, LEAVING = range(10)
# By the worker, and by the Arbiter while there is none.
STATE, SINCE, LIMIT, BEGAN, STREAMS, SPOOLED, CONNECTIONS, ACTIVE, LAST_QUEUE = range(16, 25)
# Text, ended by a zero byte: who asks, the request's id and its first line; and the view's name.
TEXT_AT, TEXT_BYTES = 256, 512
VIEW_AT, VIEW_BYTES = TEXT_AT + TEXT_BYTES, 128

# Counters: they only grow, and go on from one worker in a slot to the next.
COUNTERS = 1024 // WORD
REFUSED, RECEIVED, SENT, BODIES, ACCEPTED, GAVE, GAVE_IDLE, TOOK, TOOK_IDLE = range(COUNTERS, COUNTERS + 9)
# Requests, by what became of them and how long that took.
ANSWERS = ("none", "2xx", "3xx", "4xx", "5xx")
TIME_BUCKETS = len(TIMES) + 1
SIZE_BUCKETS = len(SIZES) + 1
APPLICATION = TOOK_IDLE + 1
QUEUE = APPLICATION + len(ANSWERS) * TIME_BUCKETS
RESPONSE = QUEUE + TIME_BUCKETS
WHOLE_COUNTERS = RESPONSE + SIZE_BUCKETS
# The last two are seconds.
APPLICATION_SECONDS, QUEUE_SECONDS = WHOLE_COUNTERS, WHOLE_COUNTERS + 1
COUNTERS_END = QUEUE_SECONDS + 1

# -- the stacks of each worker's threads, as its Arbiter found them last -----------------------------------------------
DUMP_BYTES = 32 * 1024


def stacks_at(slots: int) -> int:
    return ROWS_AT + slots * ROW_BYTES


def size(slots: int) -> int:
    return stacks_at(slots) + slots * DUMP_BYTES


assert COUNTERS_END * WORD <= ROW_BYTES and VIEW_AT + VIEW_BYTES <= COUNTERS * WORD
assert (1 + COUNTERS_END - COUNTERS) * WORD <= HISTORY_BYTES
assert (H_GENERATIONS + GENERATIONS * GENERATION_WORDS) * WORD <= FAILED_BYTES
