-- Times are milliseconds since 1970. JSON is text, because key order and the spelling of numbers are kept.

CREATE TABLE queues (
    name TEXT NOT NULL PRIMARY KEY,
    resource TEXT NOT NULL,
    config TEXT NOT NULL,
    template_variables TEXT NOT NULL,
    prioritization INTEGER NOT NULL,
    paused INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- `position` is the place among items of the same priority: a retried item goes to the back.
-- `agent` names a row of `agents` that may be gone: an item outlives the memory of who ran it.
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL REFERENCES queues (name) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('PENDING', 'LEASED', 'CLAIMED', 'FINISHED', 'FAILED', 'STOPPED')),
    spec TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1,
    agent TEXT,
    run_id TEXT,
    leased_until INTEGER CHECK ((leased_until IS NOT NULL) = (state = 'LEASED')),
    pushed_at INTEGER NOT NULL,
    claimed_at INTEGER,
    ended_at INTEGER,
    duration INTEGER,
    command TEXT,
    log TEXT,
    exit_code INTEGER CHECK ((exit_code IS NOT NULL) = (state = 'FINISHED')),
    oom_killed INTEGER NOT NULL DEFAULT 0,
    stage TEXT CHECK ((stage IS NOT NULL) = (state = 'FAILED')),
    message TEXT,
    details TEXT NOT NULL DEFAULT '',
    stop_requested INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX items_by_position ON items (position);
CREATE INDEX items_by_queue ON items (queue);
CREATE INDEX items_by_turn ON items (queue, priority, position) WHERE state IN ('PENDING', 'LEASED');

CREATE TABLE warnings (
    item INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    text TEXT NOT NULL
) STRICT;

CREATE INDEX warnings_by_item ON warnings (item);

-- `socket` is where the agent listens for a nudge.
CREATE TABLE agents (
    id TEXT NOT NULL PRIMARY KEY,
    hostname TEXT NOT NULL,
    pid INTEGER NOT NULL,
    queues TEXT NOT NULL,
    max_jobs INTEGER,
    running INTEGER NOT NULL,
    status TEXT NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    socket TEXT
) STRICT;
