-- Who gets in: keys belong to users, users to entities. Everything that was there before belongs to `local`.

CREATE TABLE entities (
    name TEXT NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

INSERT INTO entities (name, created_at) VALUES ('local', 0);

CREATE TABLE users (
    name TEXT NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    entity TEXT NOT NULL REFERENCES entities (name) ON DELETE CASCADE,
    PRIMARY KEY (user, entity)
) STRICT;

-- `hash` is the SHA-256 of the key, which is 160 bits of chance: nothing slower is needed to keep it from being guessed.
CREATE TABLE keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    hash TEXT NOT NULL UNIQUE,
    ending TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER,
    revoked_at INTEGER
) STRICT;

-- The name of a queue stays its key: `NAME` for those of `local`, `ENTITY/NAME` for all others.
ALTER TABLE queues ADD COLUMN entity TEXT NOT NULL DEFAULT 'local';
ALTER TABLE queues ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE queues ADD COLUMN external_links TEXT NOT NULL DEFAULT '{"links":[]}';
CREATE INDEX queues_by_entity ON queues (entity);

-- A config that a client saved and has not yet made a queue of.
CREATE TABLE resource_configs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    entity TEXT NOT NULL REFERENCES entities (name) ON DELETE CASCADE,
    resource TEXT NOT NULL,
    config TEXT NOT NULL,
    template_variables TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

ALTER TABLE agents ADD COLUMN entity TEXT NOT NULL DEFAULT 'local';
ALTER TABLE agents ADD COLUMN user TEXT NOT NULL DEFAULT '';
ALTER TABLE agents ADD COLUMN stop_polling INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN config TEXT NOT NULL DEFAULT '{}';
ALTER TABLE agents ADD COLUMN version TEXT NOT NULL DEFAULT '';

-- Who pushed an item, where its run is once it is claimed, and the files that tell why it failed: paths in the run
-- of the agent.
ALTER TABLE items ADD COLUMN pushed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE items ADD COLUMN run INTEGER;
ALTER TABLE items ADD COLUMN files TEXT NOT NULL DEFAULT '[]';
CREATE INDEX items_by_run ON items (run) WHERE run IS NOT NULL;

-- W&B's own agent writes the name of a project in small letters and everyone else as it was typed: one project.
CREATE TABLE projects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    entity TEXT NOT NULL REFERENCES entities (name) ON DELETE CASCADE,
    name TEXT NOT NULL COLLATE NOCASE,
    created_at INTEGER NOT NULL,
    UNIQUE (entity, name)
) STRICT;

-- A run is made when its item is claimed, in the state `pending`, or by the program itself.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    user TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('pending', 'running', 'finished', 'failed', 'crashed', 'killed')),
    stopped INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    -- What follows is the program's own account. JSON is text here too.
    display_name TEXT,
    config TEXT,
    summary TEXT,
    notes TEXT,
    description TEXT,
    tags TEXT NOT NULL DEFAULT '[]',
    group_name TEXT,
    job_type TEXT,
    sweep TEXT,
    git_commit TEXT,
    repo TEXT,
    program TEXT,
    host TEXT,
    exit_code INTEGER,
    -- The program began anew: lines of an earlier life are cut off where its first ones come.
    began_anew TEXT NOT NULL DEFAULT '[]',
    UNIQUE (project, name)
) STRICT;

CREATE INDEX runs_by_state ON runs (state) WHERE state = 'running';

-- Lines that a run streams: `history`, `events` (of the machine) and `output` (of the console). `step` is a history
-- line's own.
CREATE TABLE run_lines (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    stream TEXT NOT NULL CHECK (stream IN ('history', 'events', 'output')),
    number INTEGER NOT NULL,
    step INTEGER,
    line TEXT NOT NULL,
    PRIMARY KEY (run, stream, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX run_lines_by_step ON run_lines (run, stream, step) WHERE step IS NOT NULL;

-- What the lines of each run take, so that no count of all of them is needed.
CREATE TABLE run_line_bytes (
    run INTEGER NOT NULL PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    bytes INTEGER NOT NULL
) STRICT;

-- Contents of files. The file of each is named by its SHA-256; MD5 is only what the client speaks of.
CREATE TABLE blobs (
    sha256 TEXT NOT NULL PRIMARY KEY,
    md5 TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE run_files (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    blob TEXT NOT NULL REFERENCES blobs (sha256),
    updated_at INTEGER NOT NULL,
    UNIQUE (run, name)
) STRICT;

CREATE INDEX run_files_by_blob ON run_files (blob);

-- `next_version` only grows: the version of a deleted artifact is never another's.
CREATE TABLE artifact_collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    next_version INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    UNIQUE (project, name)
) STRICT;

-- An artifact gets its version, and the aliases that it asked for, when it is committed.
CREATE TABLE artifacts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES artifact_collections (id) ON DELETE CASCADE,
    run INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    state TEXT NOT NULL CHECK (state IN ('PENDING', 'COMMITTED', 'DELETED')),
    version INTEGER CHECK ((version IS NULL) = (state = 'PENDING')),
    digest TEXT NOT NULL,
    client_id TEXT,
    wanted_aliases TEXT NOT NULL DEFAULT '[]',
    description TEXT,
    metadata TEXT,
    size INTEGER NOT NULL DEFAULT 0,
    file_count INTEGER NOT NULL DEFAULT 0,
    manifest INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (collection, version),
    UNIQUE (collection, client_id)
) STRICT;

CREATE TABLE artifact_aliases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES artifact_collections (id) ON DELETE CASCADE,
    alias TEXT NOT NULL,
    artifact INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
    UNIQUE (collection, alias)
) STRICT;

CREATE INDEX artifact_aliases_by_artifact ON artifact_aliases (artifact);

-- A manifest has its content once it was uploaded. `md5` is what its maker says that it will be.
CREATE TABLE artifact_manifests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    artifact INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
    md5 TEXT,
    blob TEXT REFERENCES blobs (sha256)
) STRICT;

CREATE INDEX artifact_manifests_by_artifact ON artifact_manifests (artifact);
CREATE INDEX artifact_manifests_by_blob ON artifact_manifests (blob) WHERE blob IS NOT NULL;

CREATE TABLE artifact_files (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    artifact INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    md5 TEXT NOT NULL,
    blob TEXT REFERENCES blobs (sha256),
    updated_at INTEGER NOT NULL,
    UNIQUE (artifact, name)
) STRICT;

CREATE INDEX artifact_files_by_blob ON artifact_files (blob) WHERE blob IS NOT NULL;

-- Which artifacts a run used.
CREATE TABLE artifact_uses (
    artifact INTEGER NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    PRIMARY KEY (artifact, run)
) STRICT, WITHOUT ROWID;

-- What signs the addresses of uploads and downloads: 32 bytes of chance.
CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
