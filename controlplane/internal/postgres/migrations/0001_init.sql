-- +goose Up
-- The first schema. Every clinic table starts its keys with clinic_id and has row-level security, forced for the owner too.
-- A transaction states its rights with set_config('kadomori.clinics', '{1,2}', true); without it, no row is seen.

-- Roles. kadomori_app: the control plane's pool; NOINHERIT, so that it has the rights of kadomori_fleet only after SET LOCAL ROLE.
-- kadomori_fleet: sees every clinic, can't log in; entered by postgres.DB.Fleet alone, which names and audits the actor.
-- kadomori_ingest: writes events (COPY needs BYPASSRLS). kadomori_reporter: reads report_* views, freezes reports.
-- Where roles are made by a database administrator beforehand, these statements find them and do nothing.
-- +goose StatementBegin
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kadomori_app') THEN
    CREATE ROLE kadomori_app LOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kadomori_fleet') THEN
    CREATE ROLE kadomori_fleet NOLOGIN NOSUPERUSER NOBYPASSRLS;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kadomori_ingest') THEN
    CREATE ROLE kadomori_ingest LOGIN NOSUPERUSER BYPASSRLS;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kadomori_reporter') THEN
    CREATE ROLE kadomori_reporter LOGIN NOSUPERUSER NOBYPASSRLS;
  END IF;
  IF NOT pg_has_role('kadomori_app', 'kadomori_fleet', 'MEMBER') THEN
    GRANT kadomori_fleet TO kadomori_app;
  END IF;
END $$;
-- +goose StatementEnd

-- The clinics whose rows the transaction may see; NULL when none was stated.
-- +goose StatementBegin
CREATE FUNCTION kadomori_clinics() RETURNS int[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT nullif(current_setting('kadomori.clinics', true), '')::int[]
$$;
-- +goose StatementEnd

CREATE TABLE operator (
  id            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          text NOT NULL UNIQUE,
  display_name  text NOT NULL,
  role          text NOT NULL CHECK (role IN ('analyst','lead','operator','approver','auditor','admin')),
  password_hash text NOT NULL, -- argon2id, PHC string
  language      text NOT NULL DEFAULT 'ja' CHECK (language IN ('ja','en')),
  theme         text NOT NULL DEFAULT 'auto' CHECK (theme IN ('auto','light','dark')),
  disabled      boolean NOT NULL DEFAULT false,
  created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE operator_session (
  token_hash  bytea PRIMARY KEY, -- SHA-256 of 32 random bytes
  operator_id int NOT NULL REFERENCES operator ON DELETE CASCADE,
  kind        text NOT NULL CHECK (kind IN ('console','cli')),
  created_at  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL
);

CREATE TABLE plan (
  id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL UNIQUE,
  document   text NOT NULL, -- YAML as the operator wrote it
  revision   bigint NOT NULL DEFAULT 1,
  author     text NOT NULL,
  reason     text NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE clinic (
  clinic_id  int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code       text NOT NULL UNIQUE, -- C001
  name       text NOT NULL,
  kana       text NOT NULL DEFAULT '',
  director   text NOT NULL DEFAULT '',
  plan_id    int NOT NULL REFERENCES plan,
  hours      text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE policy_override (
  clinic_id  int PRIMARY KEY REFERENCES clinic,
  document   text NOT NULL,
  author     text NOT NULL,
  reason     text NOT NULL,
  expires_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE appliance (
  appliance_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  clinic_id    int NOT NULL REFERENCES clinic,
  name         text NOT NULL,
  serial       text NOT NULL DEFAULT '',
  model        text NOT NULL DEFAULT '',
  state        text NOT NULL CHECK (state IN ('claimed','pending','approved','rejected','revoked','retired')),
  key_sha256   bytea, -- of the SubjectPublicKeyInfo
  -- What the box reports.
  last_seen         timestamptz,
  connected         boolean NOT NULL DEFAULT false,
  version           text NOT NULL DEFAULT '',
  wire_mode         text NOT NULL DEFAULT '',
  policy_version    bigint NOT NULL DEFAULT 0,
  signature_version bigint NOT NULL DEFAULT 0,
  refused           text NOT NULL DEFAULT '', -- reason of the last refused bundle, '' when in sync
  clock_offset_ms   bigint,
  spool_depth       bigint,
  revision          bigint NOT NULL DEFAULT 1, -- of the desired state
  created_at   timestamptz NOT NULL DEFAULT now(),
  UNIQUE (clinic_id, appliance_id)
);

CREATE TABLE claim (
  claim_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  clinic_id    int NOT NULL REFERENCES clinic,
  appliance_id int NOT NULL,
  secret_hash  bytea NOT NULL UNIQUE, -- SHA-256 of the 32-byte secret
  serial       text NOT NULL DEFAULT '',
  auto_approve boolean NOT NULL,
  created_by   text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz NOT NULL,
  used_at      timestamptz,
  used_key     bytea, -- the key that used it, so that the same box may ask again
  FOREIGN KEY (clinic_id, appliance_id) REFERENCES appliance (clinic_id, appliance_id)
);

CREATE TABLE certificate (
  clinic_id    int NOT NULL REFERENCES clinic,
  appliance_id int NOT NULL,
  serial       text PRIMARY KEY, -- hex
  not_before   timestamptz NOT NULL,
  not_after    timestamptz NOT NULL,
  revoked_at   timestamptz,
  FOREIGN KEY (clinic_id, appliance_id) REFERENCES appliance (clinic_id, appliance_id)
);
CREATE INDEX ON certificate (clinic_id, appliance_id);

-- Bundles: what is wanted. clinic_id is NULL for bundles of the fleet.
CREATE TABLE bundle (
  bundle_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  clinic_id    int REFERENCES clinic,
  appliance_id int REFERENCES appliance,
  kind         text NOT NULL CHECK (kind IN ('policy','signature')),
  version      bigint NOT NULL,
  sha256       bytea NOT NULL,
  size         bigint NOT NULL,
  envelope     bytea NOT NULL, -- kadomori.bundle.v1.Envelope
  content      bytea NOT NULL,
  author       text NOT NULL,
  reason       text NOT NULL DEFAULT '',
  created_at   timestamptz NOT NULL DEFAULT now(),
  CHECK ((appliance_id IS NULL) = (clinic_id IS NULL))
);
CREATE UNIQUE INDEX ON bundle (kind, coalesce(appliance_id, 0), version);
CREATE INDEX ON bundle (sha256);

-- Events, by month of box time. The ledger, not an index, keeps them unique.
CREATE TABLE event (
  clinic_id    int NOT NULL,
  appliance_id int NOT NULL,
  stream_id    uuid NOT NULL,
  seq          bigint NOT NULL,
  t            timestamptz NOT NULL, -- box time
  received_at  timestamptz NOT NULL,
  kind         text NOT NULL, -- alert, detection, block, traffic, device_seen, health, unprotected, spool_gap, stream_start, self_test
  severity     smallint NOT NULL DEFAULT 0, -- 1 info .. 5 critical; 0 none
  category     text NOT NULL DEFAULT '',    -- bot, malware, intrusion, bad_site, scan, policy, other
  action       text NOT NULL DEFAULT '',    -- passed, blocked
  certainty    smallint NOT NULL DEFAULT 0, -- 1 suspected, 2 likely, 3 confirmed
  rule         text NOT NULL DEFAULT '',    -- alert: "gid:sid"; detection: detector; block: reason
  title        text NOT NULL DEFAULT '',    -- alert: msg; detection: list or detector; block: list
  indicator    text NOT NULL DEFAULT '',
  count        int NOT NULL DEFAULT 1,
  direction    smallint NOT NULL DEFAULT 0, -- 1 outbound, 2 inbound, 3 internal
  src_ip       inet,
  src_port     int,
  dst_ip       inet,
  dst_port     int,
  ip_proto     smallint,
  app          text NOT NULL DEFAULT '',
  device_mac   macaddr,
  device_ip    inet,
  zone         text NOT NULL DEFAULT '',
  detail       jsonb NOT NULL DEFAULT '{}'
) PARTITION BY RANGE (t);
-- Absurd clocks land here; a row in it is an alarm.
CREATE TABLE event_default PARTITION OF event DEFAULT;
ALTER TABLE event_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE event_default FORCE ROW LEVEL SECURITY;
CREATE INDEX event_clinic_t ON event (clinic_id, t);
CREATE INDEX event_rule_t ON event (rule, t) WHERE kind IN ('alert','detection');
CREATE INDEX event_t ON event USING brin (t);

-- Makes the monthly partitions (UTC) from the month of p_from on; returns how many were missing. Nobody is granted anything on a
-- partition: a grant there goes round the parent's policy. Rows of the month that already lie in event_default move.
-- +goose StatementBegin
CREATE FUNCTION event_make_partitions(p_from timestamptz, p_months int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  lo timestamptz; hi timestamptz; name text; made int := 0;
BEGIN
  IF p_months NOT BETWEEN 1 AND 240 THEN
    RAISE EXCEPTION 'event_make_partitions: % months is outside 1 to 240', p_months;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('event_make_partitions'));
  FOR i IN 0 .. p_months - 1 LOOP
    lo := (date_trunc('month', p_from AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
    hi := (date_trunc('month', p_from AT TIME ZONE 'UTC') + make_interval(months => i + 1)) AT TIME ZONE 'UTC';
    name := 'event_' || to_char(lo AT TIME ZONE 'UTC', 'YYYY_MM');
    CONTINUE WHEN to_regclass('public.' || quote_ident(name)) IS NOT NULL;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('WITH moved AS (DELETE FROM public.event_default WHERE t >= %L AND t < %L RETURNING *)
                    INSERT INTO public.%I SELECT * FROM moved', lo, hi, name);
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE public.event ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', name, lo, hi);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION event_make_partitions FROM PUBLIC;

CREATE TABLE event_ledger (
  clinic_id    int NOT NULL REFERENCES clinic,
  appliance_id int NOT NULL,
  stream_id    uuid NOT NULL,
  got          int8multirange NOT NULL DEFAULT '{}',
  declared     int8multirange NOT NULL DEFAULT '{}', -- declared lost by spool_gap events; some may still come late
  refused      int8multirange NOT NULL DEFAULT '{}', -- came, but could not be read: see dead_letter
  first_at     timestamptz NOT NULL DEFAULT now(),
  last_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (appliance_id, stream_id),
  FOREIGN KEY (clinic_id, appliance_id) REFERENCES appliance (clinic_id, appliance_id)
);

-- Every event of the stream up to this number was received, declared lost or refused: what the appliance's spool may forget.
-- +goose StatementBegin
CREATE FUNCTION event_through(l event_ledger) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT upper(r) - 1 FROM unnest(l.got + l.declared + l.refused) r WHERE r @> 1::int8), 0)
$$;
-- How many rows lie in event_default, counted to 1000 at most.
CREATE FUNCTION event_outside_partitions() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT count(*) FROM (SELECT FROM public.event_default LIMIT 1000) d
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION event_outside_partitions FROM PUBLIC;

-- What ingest could not take, for people to look at.
CREATE TABLE dead_letter (
  dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  clinic_id    int, -- of the subject; NULL when the subject names none
  appliance_id int,
  subject     text NOT NULL,
  reason      text NOT NULL,
  body        bytea NOT NULL, -- at most 64 KiB of it
  received_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE device (
  clinic_id  int NOT NULL REFERENCES clinic,
  mac        macaddr NOT NULL,
  ip         inet,
  zone       text NOT NULL DEFAULT '',
  hostname   text NOT NULL DEFAULT '',
  name       text NOT NULL DEFAULT '', -- the clinic's own; '' = none given
  source     text NOT NULL DEFAULT '',
  anonymous  boolean NOT NULL DEFAULT false,
  first_seen timestamptz NOT NULL,
  last_seen  timestamptz NOT NULL,
  PRIMARY KEY (clinic_id, mac)
);

-- Roll-ups, kept in the ingest transaction. hour is the start of the hour, UTC.
CREATE TABLE traffic_hourly (
  clinic_id  int NOT NULL REFERENCES clinic,
  hour       timestamptz NOT NULL,
  app        text NOT NULL,
  device_mac macaddr NOT NULL, -- 00:00:00:00:00:00 = no known device
  zone       text NOT NULL,
  visibility text NOT NULL, -- clear, name, opaque
  bytes_in   bigint NOT NULL,
  bytes_out  bigint NOT NULL,
  packets    bigint NOT NULL,
  flows      bigint NOT NULL,
  PRIMARY KEY (clinic_id, hour, app, device_mac, zone, visibility)
);

CREATE TABLE coverage_hourly (
  clinic_id      int NOT NULL REFERENCES clinic,
  appliance_id   int NOT NULL,
  hour           timestamptz NOT NULL,
  reported_ms    bigint NOT NULL, -- of the hour, covered by health events
  unprotected_ms bigint NOT NULL,
  packets_seen   bigint NOT NULL,
  packets_lost   bigint NOT NULL,
  bytes_clear    bigint NOT NULL,
  bytes_name     bigint NOT NULL,
  bytes_opaque   bigint NOT NULL,
  PRIMARY KEY (clinic_id, appliance_id, hour)
);

CREATE TABLE report (
  report_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  clinic_id   int NOT NULL REFERENCES clinic,
  month       date NOT NULL, -- first day, Japan time
  revision    int NOT NULL,
  document_no text NOT NULL,
  verdict     text NOT NULL CHECK (verdict IN ('act','warn','ok','hold')),
  facts       jsonb NOT NULL, -- every number with the ids it came from
  html        text NOT NULL,
  pdf         bytea NOT NULL,
  data_sha256 bytea NOT NULL,
  pdf_sha256  bytea NOT NULL,
  renderer    text NOT NULL, -- versions of renderer and fonts
  created_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (clinic_id, month, revision)
);

-- Chained: the trigger gives each row its number (without holes) and hash = SHA-256(prev_hash || audit_text(row)). INSERT names
-- neither audit_id nor the hashes. Writers wait for each other until commit: insert the audit row last in a transaction.
CREATE TABLE audit_log (
  audit_id  bigint PRIMARY KEY,
  t         timestamptz NOT NULL DEFAULT now(),
  actor     text NOT NULL, -- operator name, "appliance:7", "system"
  action    text NOT NULL, -- clinic.create, claim.use, ...
  target    text NOT NULL,
  clinic_id int,
  reason    text NOT NULL DEFAULT '',
  detail    jsonb NOT NULL DEFAULT '{}',
  prev_hash bytea NOT NULL, -- of row audit_id - 1; 32 zero bytes for the first
  hash      bytea NOT NULL
);
CREATE INDEX ON audit_log (clinic_id, t);

CREATE TABLE audit_head (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  audit_id bigint NOT NULL,
  hash     bytea NOT NULL
);
INSERT INTO audit_head (audit_id, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- The bytes that are hashed: a JSON array as PostgreSQL prints jsonb, which is canonical.
-- +goose StatementBegin
CREATE FUNCTION audit_text(a audit_log) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_array(a.audit_id, to_char(a.t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), a.actor, a.action, a.target,
                           a.clinic_id, a.reason, a.detail)::text
$$;
CREATE FUNCTION audit_chain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  SELECT h.audit_id + 1, h.hash INTO NEW.audit_id, NEW.prev_hash FROM public.audit_head h FOR UPDATE;
  NEW.hash := sha256(NEW.prev_hash || convert_to(public.audit_text(NEW), 'UTF8'));
  UPDATE public.audit_head SET audit_id = NEW.audit_id, hash = NEW.hash;
  RETURN NEW;
END $$;
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_log is append-only';
END $$;
-- +goose StatementEnd
CREATE TRIGGER audit_chain BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_chain();
CREATE TRIGGER audit_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();

CREATE TABLE setting (
  name  text PRIMARY KEY, -- msp.name, msp.phone, msp.hours, ...
  value text NOT NULL
);

-- Row-level security on every clinic table.
-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['clinic','policy_override','appliance','claim','certificate','event','event_ledger','device',
                           'dead_letter','traffic_hourly','coverage_hourly','report','bundle','audit_log'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY fleet ON %I TO kadomori_fleet USING (true) WITH CHECK (true)', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I USING (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))
                      WITH CHECK (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))$p$, t);
  END LOOP;
END $$;
-- +goose StatementEnd
-- A bundle of the fleet is read by all and written by the fleet's role alone. An audit row of no clinic is written by all.
CREATE POLICY fleet_bundle ON bundle FOR SELECT USING (clinic_id IS NULL);
CREATE POLICY fleet_audit ON audit_log FOR INSERT WITH CHECK (clinic_id IS NULL);

-- What the reporter may see. Views run with the reader's own rights on rows: the same setting decides.
CREATE VIEW report_clinic WITH (security_barrier) AS
  SELECT clinic_id, code, name, kana, director, hours FROM clinic WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

CREATE VIEW report_setting AS SELECT name, value FROM setting WHERE name LIKE 'msp.%';

-- One row per thing found: alerts, detections and blocks. 件 = sum(count). infected-host rows are verdicts on devices, not findings.
CREATE VIEW report_finding WITH (security_barrier) AS
  SELECT clinic_id, appliance_id, stream_id, seq, t, kind, severity, category, action, certainty, rule, title, indicator, count,
         direction, src_ip, src_port, dst_ip, dst_port, ip_proto, app, device_mac, device_ip, zone
  FROM event
  WHERE kind IN ('alert','detection','block') AND NOT (kind = 'detection' AND rule = 'infected-host')
    AND clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

-- One row per statement that a device is under suspicion; the last and the highest certainty count.
CREATE VIEW report_infected WITH (security_barrier) AS
  SELECT clinic_id, appliance_id, stream_id, seq, t, certainty, device_mac, device_ip, zone, indicator, detail->'signals' AS signals
  FROM event
  WHERE kind = 'detection' AND rule = 'infected-host' AND clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

CREATE VIEW report_device WITH (security_barrier) AS
  SELECT clinic_id, mac, ip, zone, hostname, name, anonymous, first_seen, last_seen
  FROM device WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

CREATE VIEW report_traffic WITH (security_barrier) AS
  SELECT clinic_id, hour, app, device_mac, zone, visibility, bytes_in, bytes_out, packets, flows
  FROM traffic_hourly WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

CREATE VIEW report_coverage WITH (security_barrier) AS
  SELECT clinic_id, appliance_id, hour, reported_ms, unprotected_ms, packets_seen, packets_lost, bytes_clear, bytes_name, bytes_opaque
  FROM coverage_hourly WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

-- Per stream: how many arrived, how many are missing, declared by the box or not.
CREATE VIEW report_ledger WITH (security_barrier) AS
  SELECT clinic_id, appliance_id, stream_id, first_at, last_at,
         (SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM unnest(got) r)::bigint AS received,
         (SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM unnest(declared - got) r)::bigint AS lost_declared,
         (SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM unnest(refused - got) r)::bigint AS refused,
         (SELECT coalesce(sum(upper(r) - lower(r)), 0)
            FROM unnest(CASE WHEN isempty(got) THEN '{}'::int8multirange
                             ELSE int8multirange(int8range(1, upper(got))) - got - declared - refused END) r)::bigint AS lost_undeclared
  FROM event_ledger WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

CREATE VIEW report_unprotected WITH (security_barrier) AS
  SELECT clinic_id, appliance_id, stream_id, seq, t, (detail->>'from')::timestamptz AS from_t, (detail->>'to')::timestamptz AS to_t,
         detail->>'cause' AS cause
  FROM event WHERE kind = 'unprotected' AND clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

CREATE VIEW report_appliance WITH (security_barrier) AS
  SELECT clinic_id, appliance_id, name, serial, state, last_seen, version, policy_version, signature_version, created_at
  FROM appliance WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

CREATE VIEW report_frozen WITH (security_barrier) AS
  SELECT report_id, clinic_id, month, revision, document_no, verdict, facts, data_sha256, pdf_sha256, created_at
  FROM report WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);

-- The only write the reporter has: freeze one report. Returns report_id.
-- +goose StatementBegin
CREATE FUNCTION report_freeze(p_clinic int, p_month date, p_document_no text, p_verdict text, p_facts jsonb, p_html text, p_pdf bytea,
                              p_data_sha256 bytea, p_pdf_sha256 bytea, p_renderer text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE id bigint;
BEGIN
  IF p_clinic = ANY (public.kadomori_clinics()) IS NOT TRUE THEN
    RAISE EXCEPTION 'report_freeze: clinic % is not among kadomori.clinics', p_clinic USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('report_freeze'), p_clinic);
  INSERT INTO public.report (clinic_id, month, revision, document_no, verdict, facts, html, pdf, data_sha256, pdf_sha256, renderer)
  SELECT p_clinic, p_month, 1 + coalesce((SELECT max(revision) FROM public.report WHERE clinic_id = p_clinic AND month = p_month), 0),
         p_document_no, p_verdict, p_facts, p_html, p_pdf, p_data_sha256, p_pdf_sha256, p_renderer
  RETURNING report_id INTO id;
  RETURN id;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION report_freeze FROM PUBLIC;

GRANT USAGE ON SCHEMA public TO kadomori_app, kadomori_fleet, kadomori_ingest, kadomori_reporter;
GRANT SELECT, INSERT, UPDATE, DELETE ON operator, operator_session, plan, clinic, policy_override, appliance, claim, certificate, bundle,
      device, setting TO kadomori_app, kadomori_fleet;
GRANT SELECT ON event, event_ledger, dead_letter, traffic_hourly, coverage_hourly, report TO kadomori_app, kadomori_fleet;
GRANT SELECT, INSERT ON audit_log TO kadomori_app, kadomori_fleet;
GRANT SELECT ON audit_head TO kadomori_fleet;
GRANT SELECT, INSERT ON event TO kadomori_ingest;
GRANT SELECT, INSERT, UPDATE ON event_ledger, device, traffic_hourly, coverage_hourly TO kadomori_ingest;
GRANT SELECT, INSERT ON dead_letter TO kadomori_ingest;
GRANT SELECT ON clinic TO kadomori_ingest;
GRANT SELECT, UPDATE ON appliance TO kadomori_ingest;
GRANT SELECT ON report_clinic, report_setting, report_finding, report_infected, report_device, report_traffic, report_coverage,
      report_ledger, report_unprotected, report_appliance, report_frozen TO kadomori_app, kadomori_fleet, kadomori_reporter;
GRANT EXECUTE ON FUNCTION report_freeze TO kadomori_reporter;
GRANT EXECUTE ON FUNCTION event_make_partitions, event_outside_partitions TO kadomori_ingest;

-- +goose Down
-- The first schema has nothing to go back to: drop the database instead.
SELECT 1;
