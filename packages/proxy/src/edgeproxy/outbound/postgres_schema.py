"""What stands in PostgreSQL: the table of the contract, its change log, leases, and triggers for both.

All of it is made where it is missing, in the schema that new tables of the role go to. An existing table
``backends`` is taken as it is.
"""

# SQL is put together from the name of a schema, quoted by the server, and constants.
# ruff: noqa: S608

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgeproxy.outbound.postgres_session import Connection

CHANNEL: Final = "edgeproxy_backends"
"""Where every statement that writes the table notifies, whoever ran it."""

AUTHOR: Final = "edgeproxy.author"
"""The setting in which a transaction of ours says who writes."""

COLUMNS: Final = (
    *("id", "app", "region", "country", "wg_ip", "port"),
    *("healthy", "weight", "soft_limit", "hard_limit", "deleted"),
)

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS {schema}.backends (
    id TEXT PRIMARY KEY,
    app TEXT,
    region TEXT,
    country TEXT,
    wg_ip TEXT,
    port INTEGER,
    healthy INTEGER,
    weight INTEGER,
    soft_limit BIGINT,
    hard_limit BIGINT,
    deleted INTEGER DEFAULT 0
);
CREATE TABLE IF NOT EXISTS {schema}.edgeproxy_changes (
    change BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    author TEXT NOT NULL,
    id TEXT NOT NULL,
    old JSONB,
    new JSONB
);
CREATE INDEX IF NOT EXISTS edgeproxy_changes_at ON {schema}.edgeproxy_changes (at);
CREATE TABLE IF NOT EXISTS {schema}.edgeproxy_leases (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    registered_at DOUBLE PRECISION NOT NULL,
    heartbeat_at DOUBLE PRECISION NOT NULL,
    expired BOOLEAN NOT NULL
);
"""

# The first two run with the rights of whoever made them: people who may edit backends need no right to write
# the log and leases.
_FUNCTION: Final = """
CREATE OR REPLACE FUNCTION {schema}.edgeproxy_record_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $function$
DECLARE
    who text := coalesce(
        nullif(current_setting('edgeproxy.author', true), ''),
        format('outside (%s)', concat_ws(', ', session_user, nullif(current_setting('application_name'), '')))
    );
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO edgeproxy_changes (author, id, old) SELECT who, id, to_jsonb(backends) FROM backends;
    ELSIF TG_OP = 'UPDATE' AND OLD.id = NEW.id THEN
        IF OLD IS DISTINCT FROM NEW THEN
            INSERT INTO edgeproxy_changes (author, id, old, new)
            VALUES (who, NEW.id, to_jsonb(OLD), to_jsonb(NEW));
        END IF;
    ELSE
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO edgeproxy_changes (author, id, old) VALUES (who, OLD.id, to_jsonb(OLD));
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO edgeproxy_changes (author, id, new) VALUES (who, NEW.id, to_jsonb(NEW));
        END IF;
    END IF;
    RETURN NULL;
END
$function$;
CREATE OR REPLACE FUNCTION {schema}.edgeproxy_release_health() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $function$
BEGIN
    UPDATE edgeproxy_leases SET expired = false WHERE id = NEW.id AND expired;
    RETURN NULL;
END
$function$;
CREATE OR REPLACE FUNCTION {schema}.edgeproxy_notify() RETURNS trigger
LANGUAGE plpgsql AS $function$
BEGIN
    PERFORM pg_notify('edgeproxy_backends', '');
    RETURN NULL;
END
$function$;
"""

_TRIGGERS: Final = {
    "edgeproxy_record_row": "AFTER INSERT OR UPDATE OR DELETE ON {schema}.backends FOR EACH ROW "
    "EXECUTE FUNCTION {schema}.edgeproxy_record_change()",
    "edgeproxy_record_truncate": "BEFORE TRUNCATE ON {schema}.backends FOR EACH STATEMENT "
    "EXECUTE FUNCTION {schema}.edgeproxy_record_change()",
    # Fires for each statement that names the column, even where it leaves the value as it is.
    "edgeproxy_release_health": "AFTER INSERT OR UPDATE OF healthy ON {schema}.backends FOR EACH ROW "
    "EXECUTE FUNCTION {schema}.edgeproxy_release_health()",
    "edgeproxy_notify": "AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {schema}.backends "
    "FOR EACH STATEMENT EXECUTE FUNCTION {schema}.edgeproxy_notify()",
}

_DEFINITIONS: Final = "".join((_TABLES, _FUNCTION, *_TRIGGERS.values()))
_MARK: Final = f"edgeproxy {hashlib.sha256(_DEFINITIONS.encode()).hexdigest()[:16]}"
"""A comment on the function that says which definitions are there."""

_LOCK: Final = int.from_bytes(b"edgeprox")
"""Two proxies that start at once must not make the same table."""


async def install(connection: Connection) -> None:
    """Make what is missing, in one transaction; nothing is locked or written when all is there.

    Raises:
        asyncpg.PostgresError: the role may not, or something of another kind has one of the names.
    """
    schema = await connection.fetchval("SELECT quote_ident(current_schema())")
    if await _is_installed(connection, schema):
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_TABLES.format(schema=schema))
        await connection.execute(_FUNCTION.format(schema=schema))
        for name, definition in _TRIGGERS.items():
            await connection.execute(f"DROP TRIGGER IF EXISTS {name} ON {schema}.backends")
            await connection.execute(f"CREATE TRIGGER {name} {definition.format(schema=schema)}")
        await connection.execute(f"COMMENT ON FUNCTION {schema}.edgeproxy_record_change() IS '{_MARK}'")


async def _is_installed(connection: Connection, schema: str) -> bool:
    query = f"""
        SELECT obj_description(to_regprocedure('{schema}.edgeproxy_record_change()'), 'pg_proc') = $1
        AND to_regclass('{schema}.edgeproxy_changes') IS NOT NULL
        AND to_regclass('{schema}.edgeproxy_leases') IS NOT NULL
        AND (
            SELECT count(*) FROM pg_trigger
            WHERE tgrelid = to_regclass('{schema}.backends') AND tgname = ANY ($2) AND tgenabled <> 'D'
        ) = $3
    """
    return bool(await connection.fetchval(query, _MARK, list(_TRIGGERS), len(_TRIGGERS)))
