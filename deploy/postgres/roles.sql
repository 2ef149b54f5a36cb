-- Roles with the least rights of each program, for a database of Stenograph. Run by a superuser, in the database:
--
--   psql "$ADMIN_DATABASE_URL" -f deploy/postgres/roles.sql
--
-- before the first `recorder migrate`, and again after each `recorder migrate` and each `recorder rebuild`, which make tables.
-- The roles have no passwords at first: ALTER ROLE stenograph_serve PASSWORD '...'.
--
--   stenograph_migrate   recorder migrate, rebuild, verify, users, invites, keys of callers: owns the tables
--   stenograph_consume   recorder consume, quarantine: writes the record, and sees no account
--   stenograph_serve     recorder serve: reads the record, writes accounts and sessions
--   stenograph_analyst   people and programs that read the record: no accounts, and nothing is written

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['stenograph_migrate', 'stenograph_consume', 'stenograph_serve', 'stenograph_analyst'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role);
        END IF;
    END LOOP;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CREATE, TEMPORARY ON DATABASE %I TO stenograph_migrate', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO stenograph_migrate, stenograph_consume, stenograph_serve, stenograph_analyst',
        current_database());
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO stenograph_migrate;
GRANT USAGE ON SCHEMA public TO stenograph_consume, stenograph_serve, stenograph_analyst;

ALTER ROLE stenograph_analyst SET default_transaction_read_only = on;
ALTER ROLE stenograph_analyst SET statement_timeout = '5min';
ALTER ROLE stenograph_analyst CONNECTION LIMIT 10;

DO $$
DECLARE
    item record;
    record_tables constant text[] := ARRAY['chats', 'messages', 'conversations', 'usage_stats', 'usage_slots',
        'operation_slots', 'key_slots', 'api_keys', 'limits', 'projects', 'price_lists', 'repricings', 'audit_log', 'open_chats'];
    work_tables constant text[] := ARRAY['quarantine', 'stream_marks', 'live_changes', 'verifications', 'pending_repricings'];
BEGIN
    -- Tables that a superuser made before there were roles.
    FOR item IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('ALTER TABLE public.%I OWNER TO stenograph_migrate', item.tablename);
        EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC, stenograph_consume, stenograph_serve, stenograph_analyst', item.tablename);
        IF item.tablename = ANY (record_tables) THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO stenograph_consume', item.tablename);
            EXECUTE format('GRANT SELECT ON public.%I TO stenograph_serve, stenograph_analyst', item.tablename);
        ELSIF item.tablename = ANY (work_tables) THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO stenograph_consume', item.tablename);
            EXECUTE format('GRANT SELECT ON public.%I TO stenograph_serve', item.tablename);
        ELSIF item.tablename = '_sqlx_migrations' THEN
            EXECUTE format('GRANT SELECT ON public.%I TO stenograph_consume, stenograph_serve', item.tablename);
        ELSE
            -- Accounts: users, sessions, refresh_tokens, guesses, invite_codes, access_changes, disabled_external_users,
            -- audit_windows, audit_outbox.
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO stenograph_serve', item.tablename);
        END IF;
    END LOOP;
    IF to_regclass('public.live_changes') IS NOT NULL THEN
        -- `recorder serve` deletes announcements that nobody needs any more.
        GRANT DELETE ON public.live_changes TO stenograph_serve;
    END IF;
    IF to_regclass('public.audit_outbox') IS NOT NULL THEN
        -- `recorder quarantine` notes what an operator does; `recorder serve` publishes the notes.
        GRANT SELECT, INSERT, UPDATE ON public.audit_windows TO stenograph_consume;
        GRANT SELECT, INSERT ON public.audit_outbox TO stenograph_consume;
    END IF;
END $$;
