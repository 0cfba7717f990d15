-- +goose Up
-- Groups between plan and clinic, history of plans, and rollouts in rings.

-- A policy layer between a plan and a clinic's override.
CREATE TABLE policy_group (
  id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL UNIQUE,
  document   text NOT NULL,
  revision   bigint NOT NULL DEFAULT 1,
  author     text NOT NULL,
  reason     text NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Every document a plan ever had: clinics that a rollout has not reached yet follow an old one.
CREATE TABLE plan_revision (
  plan_id  int NOT NULL REFERENCES plan,
  revision bigint NOT NULL,
  document text NOT NULL,
  author   text NOT NULL,
  reason   text NOT NULL,
  at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (plan_id, revision)
);
INSERT INTO plan_revision (plan_id, revision, document, author, reason, at) SELECT id, revision, document, author, reason, updated_at FROM plan;

ALTER TABLE clinic ADD COLUMN group_id int REFERENCES policy_group;
ALTER TABLE clinic ADD COLUMN plan_revision bigint; -- NULL: the newest
-- 0: the newest released signatures; else that version, while a rollout or its rollback is under way
ALTER TABLE appliance ADD COLUMN signature_target bigint NOT NULL DEFAULT 0;
ALTER TABLE appliance ADD COLUMN replaces int; -- the appliance whose place it took
ALTER TABLE bundle ADD COLUMN released boolean NOT NULL DEFAULT true; -- false: for those whom a rollout has reached

CREATE TABLE rollout (
  rollout_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind         text NOT NULL CHECK (kind IN ('policy','signature')),
  subject      text NOT NULL, -- plan's name, or 'signatures'
  from_version bigint NOT NULL, -- plan's revision or signatures' version before
  to_version   bigint NOT NULL,
  state        text NOT NULL CHECK (state IN ('draft','running','paused','halted','rolling_back','rolled_back','done','aborted')),
  spec         jsonb NOT NULL, -- rings, gates, times
  ring         int NOT NULL DEFAULT 0, -- the one under way
  detail       text NOT NULL DEFAULT '', -- why it stands where it stands
  author       text NOT NULL,
  reason       text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  changed_at   timestamptz NOT NULL DEFAULT now()
);
-- One rollout of a subject at a time.
CREATE UNIQUE INDEX ON rollout (kind, subject) WHERE state IN ('running','paused','halted','rolling_back');

CREATE TABLE rollout_target (
  clinic_id    int NOT NULL REFERENCES clinic,
  rollout_id   bigint NOT NULL REFERENCES rollout,
  appliance_id int NOT NULL,
  ring         int NOT NULL,
  from_version bigint NOT NULL, -- what it goes back to
  -- waiting: not reached; applied: wanted; ok: runs it; failed: refused or lost; offline: applies on return; reverted: back
  state        text NOT NULL CHECK (state IN ('waiting','applied','ok','failed','offline','reverted')),
  detail       text NOT NULL DEFAULT '',
  applied_at   timestamptz,
  settled_at   timestamptz,
  PRIMARY KEY (clinic_id, rollout_id, appliance_id),
  FOREIGN KEY (clinic_id, appliance_id) REFERENCES appliance (clinic_id, appliance_id)
);
CREATE INDEX ON rollout_target (rollout_id, ring);
ALTER TABLE rollout_target ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollout_target FORCE ROW LEVEL SECURITY;
CREATE POLICY fleet ON rollout_target TO kadomori_fleet USING (true) WITH CHECK (true);
CREATE POLICY tenant ON rollout_target USING (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))
  WITH CHECK (clinic_id = ANY ((SELECT kadomori_clinics())::int[]));

GRANT SELECT, INSERT, UPDATE, DELETE ON policy_group, plan_revision, rollout, rollout_target TO kadomori_app, kadomori_fleet;

-- +goose Down
DROP TABLE rollout_target;
DROP TABLE rollout;
ALTER TABLE bundle DROP COLUMN released;
ALTER TABLE appliance DROP COLUMN replaces;
ALTER TABLE appliance DROP COLUMN signature_target;
ALTER TABLE clinic DROP COLUMN plan_revision;
ALTER TABLE clinic DROP COLUMN group_id;
DROP TABLE plan_revision;
DROP TABLE policy_group;
