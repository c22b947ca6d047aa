-- The objects that statements.txt speaks of, as a superuser creates them in an empty database.
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION dblink;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b int);
CREATE TABLE users (id serial PRIMARY KEY, name text, email text, data jsonb, tags text[], created timestamptz DEFAULT now(),
                    manager int, active boolean, feeling mood);
CREATE TABLE orders (id bigserial PRIMARY KEY, user_id int REFERENCES users, amount numeric(10,2), day date, note text);
CREATE TABLE "Mixed Case" ("Id" int, "select" text);
CREATE SCHEMA app;
CREATE TABLE app.settings (key text PRIMARY KEY, value xml);
CREATE UNLOGGED TABLE scratch (id int);
CREATE SEQUENCE counter;
CREATE TABLE measurements (at date, value int) PARTITION BY RANGE (at);
CREATE TABLE measurements_2026 PARTITION OF measurements FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE mixed_parts (at date, value int) PARTITION BY RANGE (at);
CREATE UNLOGGED TABLE mixed_parts_2026 PARTITION OF mixed_parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO users (name, email, data, tags, manager, active, feeling) VALUES
  ('ann', 'ann@example.org', '{"a": {"b": [1, 2]}}', '{x,y}', NULL, true, 'happy'),
  ('bob', 'bob@example.org', '{"a": 2}', '{z}', 1, false, 'ok');
INSERT INTO orders (user_id, amount, day) SELECT 1 + g % 2, g, '2026-01-01'::date + g FROM generate_series(1, 20) g;
INSERT INTO measurements SELECT '2026-01-01'::date + g, g FROM generate_series(1, 20) g;

CREATE FUNCTION pure_add(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + $2';
CREATE FUNCTION stable_count() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM users';
CREATE FUNCTION stable_users() RETURNS SETOF users STABLE LANGUAGE sql AS 'SELECT * FROM users';
CREATE FUNCTION touch(int) RETURNS int LANGUAGE plpgsql AS
  $$ BEGIN UPDATE users SET created = now() WHERE id = $1; RETURN $1; END $$;
CREATE FUNCTION sec_write() RETURNS int SECURITY DEFINER LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO orders (user_id) VALUES (1); RETURN 1; END $$;
CREATE FUNCTION app.audit(text) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO app.settings (key) VALUES ($1 || random()); RETURN true; END $$;
CREATE FUNCTION overloaded(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION overloaded(text) RETURNS int VOLATILE LANGUAGE sql AS 'INSERT INTO orders (note) VALUES ($1) RETURNING 1';
CREATE FUNCTION app.lower(mood) RETURNS text VOLATILE LANGUAGE sql AS 'SELECT ''x''';  -- worse than pg_catalog's lower
CREATE FUNCTION stamp(users) RETURNS int VOLATILE LANGUAGE sql AS 'INSERT INTO orders (note) VALUES ($1.name) RETURNING 1';
CREATE FUNCTION label(users) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1.name';
CREATE FUNCTION noting(int, int) RETURNS int VOLATILE LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO orders (note) VALUES ('sum'); RETURN coalesce($1, 0) + coalesce($2, 0); END $$;
CREATE AGGREGATE noting_sum(int) (SFUNC = noting, STYPE = int, INITCOND = '0');
CREATE AGGREGATE pure_sum(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE FUNCTION noting_cmp(int, int) RETURNS boolean VOLATILE LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO orders (note) VALUES ('cmp'); RETURN $1 = $2; END $$;
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = noting_cmp);
CREATE OPERATOR ==# (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE PROCEDURE add_order() LANGUAGE sql AS 'INSERT INTO orders (user_id) VALUES (1)';
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN audited AS text CHECK (app.audit(VALUE));

CREATE VIEW active_users AS SELECT id, name FROM users WHERE active;
CREATE VIEW active_names AS SELECT upper(name) AS name FROM active_users;
CREATE VIEW next_numbers AS SELECT nextval('counter') AS n;
CREATE VIEW next_twice AS SELECT x.n + x.n AS n FROM next_numbers x;
CREATE VIEW locked AS SELECT pg_try_advisory_lock(1) AS got;
CREATE VIEW role_view AS SELECT pg_is_in_recovery() AS standby;
CREATE MATERIALIZED VIEW totals AS SELECT user_id, sum(amount) AS total FROM orders GROUP BY user_id;
CREATE TABLE guarded (id int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY guard ON guarded USING (id > 0);
CREATE TABLE audited_rows (id int);
ALTER TABLE audited_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY audit ON audited_rows USING (app.audit('read'));
CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname 'app');
CREATE FOREIGN TABLE remote_users (id int) SERVER self OPTIONS (table_name 'users');
