-- +goose Up
-- Commands to appliances: signed when they are approved, sent until their result came or their time is over.
CREATE TABLE appliance_command (
  clinic_id    int NOT NULL REFERENCES clinic,
  command_id   bytea NOT NULL, -- 16 random bytes
  appliance_id int NOT NULL,
  action       text NOT NULL, -- quarantine, release, bypass, self_test, diagnostic, factory_reset
  detail       text NOT NULL, -- of what: the device, the time
  command      bytea NOT NULL, -- kadomori.fleet.v1.Command
  envelope     bytea, -- kadomori.bundle.v1.Envelope; NULL while it awaits a second person
  -- awaiting: a second person; pending: sent until answered; then how it ended
  state        text NOT NULL CHECK (state IN ('awaiting','pending','done','refused','failed','expired','cancelled')),
  result       text NOT NULL DEFAULT '',
  issued_by    text NOT NULL,
  approved_by  text NOT NULL DEFAULT '',
  reason       text NOT NULL,
  created_at   timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  settled_at   timestamptz,
  PRIMARY KEY (clinic_id, command_id),
  FOREIGN KEY (clinic_id, appliance_id) REFERENCES appliance (clinic_id, appliance_id)
);
CREATE INDEX ON appliance_command (appliance_id) WHERE state = 'pending';
CREATE INDEX ON appliance_command (created_at);
ALTER TABLE appliance_command ENABLE ROW LEVEL SECURITY;
ALTER TABLE appliance_command FORCE ROW LEVEL SECURITY;
CREATE POLICY fleet ON appliance_command TO kadomori_fleet USING (true) WITH CHECK (true);
CREATE POLICY tenant ON appliance_command USING (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))
  WITH CHECK (clinic_id = ANY ((SELECT kadomori_clinics())::int[]));
GRANT SELECT, INSERT, UPDATE ON appliance_command TO kadomori_app, kadomori_fleet;

-- +goose Down
DROP TABLE appliance_command;
