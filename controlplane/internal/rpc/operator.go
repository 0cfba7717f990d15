package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/enrol"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/signature"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// Page sizes of lists.
const (
	defaultPage = 200
	maxPage     = 1000
)

type operatorService struct {
	operatorv1.UnimplementedOperatorServiceServer
	s *Server
}

func (o *operatorService) Login(ctx context.Context, req *operatorv1.LoginRequest) (*operatorv1.LoginResponse, error) {
	token, op, expires, err := o.s.cfg.Accounts.Login(ctx, req.GetName(), req.GetPassword(), "cli")
	if err != nil {
		return nil, err
	}
	return &operatorv1.LoginResponse{Token: token, Expires: timestamppb.New(expires), Role: string(op.Role)}, nil
}

func (o *operatorService) CreateClinic(ctx context.Context, req *operatorv1.CreateClinicRequest) (*operatorv1.CreateClinicResponse, error) {
	in := req.GetClinic()
	c := clinic.Clinic{Code: in.GetCode(), Name: in.GetName(), Kana: in.GetKana(), Director: in.GetDirector(), Plan: in.GetPlan(), Hours: in.GetHours()}
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		if c.Plan == "" {
			c.Plan = policy.DefaultPlan
		}
		if c.Plan == policy.DefaultPlan {
			if _, err := policy.EnsureDefaultPlan(ctx, tx); err != nil {
				return err
			}
		}
		plan, err := policy.GetPlan(ctx, tx, c.Plan)
		if err != nil {
			return err
		}
		c.PlanID = plan.ID
		c, err = clinic.Create(ctx, tx, caller(ctx).Name, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.CreateClinicResponse{Clinic: clinicMessage(c)}, nil
}

func clinicMessage(c clinic.Clinic) *operatorv1.Clinic {
	return &operatorv1.Clinic{Id: c.ID, Code: c.Code, Name: c.Name, Kana: c.Kana, Director: c.Director, Plan: c.Plan, Hours: c.Hours}
}

// page reads size and token; the token is the last id of the page before.
func page(size int32, token string) (after, limit int32, err error) {
	limit = defaultPage
	if size != 0 {
		limit = size
	}
	if limit < 1 || limit > maxPage {
		return 0, 0, fmt.Errorf("%w: page_size %d, want 1 to %d", errRequest, size, maxPage)
	}
	if token == "" {
		return 0, limit, nil
	}
	n, err := strconv.ParseInt(token, 10, 32)
	if err != nil || n < 0 {
		return 0, 0, fmt.Errorf("%w: page_token %.20q is not one this server gave", errRequest, token)
	}
	return int32(n), limit, nil
}

func (o *operatorService) ListClinics(ctx context.Context, req *operatorv1.ListClinicsRequest) (*operatorv1.ListClinicsResponse, error) {
	after, limit, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &operatorv1.ListClinicsResponse{}
	err = o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		list, err := clinic.List(ctx, tx, after, limit)
		for _, c := range list {
			out.Clinics = append(out.Clinics, clinicMessage(c))
		}
		if len(list) == int(limit) {
			out.NextPageToken = strconv.Itoa(int(list[limit-1].ID))
		}
		return err
	})
	return out, err
}

func (o *operatorService) CreateClaim(ctx context.Context, req *operatorv1.CreateClaimRequest) (*operatorv1.CreateClaimResponse, error) {
	if req.GetTtlS() < 0 || req.GetTtlS() > int64(enrol.MaxTTL/time.Second) {
		return nil, fmt.Errorf("%w: ttl_s %d, want 0 to %d", errRequest, req.GetTtlS(), int64(enrol.MaxTTL/time.Second))
	}
	c, err := o.s.cfg.Enrolment.CreateClaim(ctx, caller(ctx).Name, enrol.Order{
		Clinic: req.GetClinicId(), Name: req.GetApplianceName(), TTL: time.Duration(req.GetTtlS()) * time.Second,
		AutoApprove: req.GetAutoApprove(), Serial: req.GetSerial(), Replaces: req.GetReplaces(),
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.CreateClaimResponse{Claim: c.Text, ClaimId: c.ID, Expires: timestamppb.New(c.Expires)}, nil
}

func (o *operatorService) ListAppliances(ctx context.Context, req *operatorv1.ListAppliancesRequest) (*operatorv1.ListAppliancesResponse, error) {
	after, limit, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &operatorv1.ListAppliancesResponse{}
	err = o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		list, err := appliance.List(ctx, tx, req.GetClinicId(), after, limit, o.s.now())
		for _, a := range list {
			m := &operatorv1.Appliance{
				Id: a.ID, ClinicId: a.Clinic, Name: a.Name, Serial: a.Serial, State: a.State, Online: a.Online, Intent: a.Intent, IntentDetail: a.IntentDetail,
				Protection: a.Protection, Version: a.Version, PolicyVersion: a.PolicyVersion, SignatureVersion: a.SignatureVersion, SpoolDepth: a.SpoolDepth,
			}
			if !a.LastSeen.IsZero() {
				m.LastSeen = timestamppb.New(a.LastSeen)
			}
			out.Appliances = append(out.Appliances, m)
		}
		if len(list) == int(limit) {
			out.NextPageToken = strconv.Itoa(int(list[limit-1].ID))
		}
		return err
	})
	return out, err
}

func (o *operatorService) ApproveAppliance(ctx context.Context, req *operatorv1.ApproveApplianceRequest) (*operatorv1.ApproveApplianceResponse, error) {
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		return o.s.cfg.Publisher.Approve(ctx, tx, caller(ctx).Name, req.GetApplianceId())
	})
	if err != nil {
		return nil, err
	}
	o.s.hub.apply(appliance.Notice{Appliances: []int32{req.GetApplianceId()}, Forget: true})
	return &operatorv1.ApproveApplianceResponse{}, nil
}

func (o *operatorService) RevokeAppliance(ctx context.Context, req *operatorv1.RevokeApplianceRequest) (*operatorv1.RevokeApplianceResponse, error) {
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		return o.s.cfg.Publisher.Revoke(ctx, tx, caller(ctx).Name, req.GetApplianceId(), strings.TrimSpace(req.GetReason()))
	})
	if err != nil {
		return nil, err
	}
	// At once here, whatever happens to the notice.
	o.s.hub.apply(appliance.Notice{Appliances: []int32{req.GetApplianceId()}, Forget: true, Disconnect: true})
	return &operatorv1.RevokeApplianceResponse{}, nil
}

func (o *operatorService) NameDevice(ctx context.Context, req *operatorv1.NameDeviceRequest) (*operatorv1.NameDeviceResponse, error) {
	mac, err := net.ParseMAC(req.GetMac())
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("%w: mac %.40q, want aa:bb:cc:dd:ee:ff", errRequest, req.GetMac())
	}
	name := strings.TrimSpace(req.GetName())
	if len(name) > 200 || strings.ContainsFunc(name, unicode.IsControl) {
		return nil, fmt.Errorf("%w: name: want at most 200 printable bytes", errRequest)
	}
	now := o.s.now()
	err = o.s.cfg.DB.As(ctx, []int32{req.GetClinicId()}, func(tx pgx.Tx) error {
		if err := clinic.Require(ctx, tx, req.GetClinicId()); err != nil {
			return err
		}
		// A device may be named before it was seen: the ledger of a new clinic comes from a list.
		_, err := tx.Exec(ctx, `INSERT INTO device (clinic_id, mac, name, source, first_seen, last_seen) VALUES ($1, $2::macaddr, $3, 'operator', $4, $4)
			ON CONFLICT (clinic_id, mac) DO UPDATE SET name = EXCLUDED.name`, req.GetClinicId(), mac.String(), name, now)
		if err != nil {
			return fmt.Errorf("name device: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{
			Actor: caller(ctx).Name, Action: "device.name", Target: "device:" + mac.String(), Clinic: req.GetClinicId(), Detail: map[string]string{"name": name},
		})
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.NameDeviceResponse{}, nil
}

func (o *operatorService) ApplyPlan(ctx context.Context, req *operatorv1.ApplyPlanRequest) (*operatorv1.ApplyPlanResponse, error) {
	change, err := o.s.cfg.Publisher.ApplyPlan(ctx, policy.Plan{
		Name: req.GetName(), Document: req.GetYaml(), Revision: int64(req.GetBaseRevision()), Author: caller(ctx).Name, Reason: strings.TrimSpace(req.GetReason()),
	}, req.GetDryRun(), req.GetStage())
	if err != nil {
		return nil, err
	}
	return &operatorv1.ApplyPlanResponse{Revision: uint64(change.Revision), Clinics: int32(change.Clinics), Diff: change.Diff}, nil
}

func (o *operatorService) GetPlan(ctx context.Context, req *operatorv1.GetPlanRequest) (*operatorv1.GetPlanResponse, error) {
	var p policy.Plan
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) (err error) {
		p, err = policy.GetPlan(ctx, tx, req.GetName())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.GetPlanResponse{Yaml: p.Document, Revision: uint64(p.Revision)}, nil
}

func (o *operatorService) SetOverride(ctx context.Context, req *operatorv1.SetOverrideRequest) (*operatorv1.SetOverrideResponse, error) {
	var expires time.Time
	if e := req.GetExpires(); e != nil {
		if err := e.CheckValid(); err != nil {
			return nil, fmt.Errorf("%w: expires: %w", errRequest, err)
		}
		expires = e.AsTime()
	}
	if err := o.s.cfg.Publisher.SetOverride(ctx, caller(ctx).Name, req.GetClinicId(), req.GetYaml(), req.GetReason(), expires); err != nil {
		return nil, err
	}
	return &operatorv1.SetOverrideResponse{}, nil
}

func (o *operatorService) ExplainPolicy(ctx context.Context, req *operatorv1.ExplainPolicyRequest) (*operatorv1.ExplainPolicyResponse, error) {
	var settings policy.Settings
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) (err error) {
		settings, err = o.s.cfg.Publisher.Explain(ctx, tx, req.GetClinicId())
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &operatorv1.ExplainPolicyResponse{}
	for _, x := range settings {
		m := &operatorv1.ExplainPolicyResponse_Setting{
			Path: x.Path, Value: policy.Format(x.Value), Layer: x.Layer.Name, Author: x.Layer.Author, Reason: x.Layer.Reason,
		}
		if !x.Layer.Expires.IsZero() {
			m.Expires = timestamppb.New(x.Layer.Expires)
		}
		out.Settings = append(out.Settings, m)
	}
	return out, nil
}

func (o *operatorService) PublishSignatures(stream grpc.ClientStreamingServer[operatorv1.PublishSignaturesRequest, operatorv1.PublishSignaturesResponse]) error {
	ctx := stream.Context()
	var files []signature.File
	var reason string
	var stage bool
	total := 0
	for first := true; ; first = false {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if first {
			reason, stage = strings.TrimSpace(req.GetReason()), req.GetStage()
		}
		for _, f := range req.GetFiles() {
			if total += len(f.GetContent()); total > signature.MaxTotal {
				return fmt.Errorf("%w: files of more than %d bytes in all", errRequest, signature.MaxTotal)
			}
			// Pieces of a file follow each other.
			if n := len(files); n > 0 && files[n-1].Name == f.GetName() {
				files[n-1].Content = append(files[n-1].Content, f.GetContent()...)
				continue
			}
			if len(files) >= signature.MaxFiles {
				return fmt.Errorf("%w: more than %d files", errRequest, signature.MaxFiles)
			}
			files = append(files, signature.File{Name: f.GetName(), Content: f.GetContent(), Kind: f.GetListKind()})
		}
	}
	version, count, err := o.s.cfg.Publisher.PublishSignatures(ctx, caller(ctx).Name, reason, files, stage)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&operatorv1.PublishSignaturesResponse{Version: version, Rules: count.Rules, Addresses: count.Addresses, Domains: count.Domains})
}

// month reads "2026-10" and returns its bounds in Japan's time.
func month(s string) (from, to time.Time, err error) {
	from, err = time.ParseInLocation("2006-01", s, clinic.JST)
	if err != nil {
		return from, to, fmt.Errorf("%w: month %.20q, want one like 2026-10", errRequest, s)
	}
	return from, from.AddDate(0, 1, 0), nil
}

func (o *operatorService) RequestReport(ctx context.Context, req *operatorv1.RequestReportRequest) (*operatorv1.RequestReportResponse, error) {
	from, _, err := month(req.GetMonth())
	if err != nil {
		return nil, err
	}
	if from.After(o.s.now()) {
		return nil, fmt.Errorf("%w: month %s has not begun", errRequest, req.GetMonth())
	}
	err = o.s.cfg.DB.As(ctx, []int32{req.GetClinicId()}, func(tx pgx.Tx) error {
		if err := clinic.Require(ctx, tx, req.GetClinicId()); err != nil {
			return err
		}
		if err := o.s.cfg.Reports.Request(ctx, tx, req.GetClinicId(), req.GetMonth()); err != nil {
			return err
		}
		return audit.Append(ctx, tx, audit.Entry{
			Actor: caller(ctx).Name, Action: "report.request", Target: fmt.Sprintf("clinic:%d", req.GetClinicId()), Clinic: req.GetClinicId(),
			Detail: map[string]string{"month": req.GetMonth()},
		})
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.RequestReportResponse{}, nil
}

const reportColumns = `report_id, clinic_id, to_char(month, 'YYYY-MM'), revision, document_no, verdict, created_at, data_sha256, pdf_sha256`

func scanReport(r pgx.CollectableRow, more ...any) (*operatorv1.Report, error) {
	m := &operatorv1.Report{}
	var created time.Time
	var data, pdf []byte
	err := r.Scan(append([]any{&m.Id, &m.ClinicId, &m.Month, &m.Revision, &m.DocumentNo, &m.Verdict, &created, &data, &pdf}, more...)...)
	m.Created, m.DataSha256, m.PdfSha256 = timestamppb.New(created), hex.EncodeToString(data), hex.EncodeToString(pdf)
	return m, err
}

func (o *operatorService) ListReports(ctx context.Context, req *operatorv1.ListReportsRequest) (*operatorv1.ListReportsResponse, error) {
	if req.GetMonth() != "" {
		if _, _, err := month(req.GetMonth()); err != nil {
			return nil, err
		}
	}
	out := &operatorv1.ListReportsResponse{}
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		q, err := tx.Query(ctx, `SELECT `+reportColumns+` FROM report WHERE ($1 = 0 OR clinic_id = $1) AND ($2 = '' OR to_char(month, 'YYYY-MM') = $2)
			ORDER BY month DESC, clinic_id, revision DESC LIMIT 5000`, req.GetClinicId(), req.GetMonth())
		if err != nil {
			return fmt.Errorf("list reports: %w", err)
		}
		out.Reports, err = pgx.CollectRows(q, func(r pgx.CollectableRow) (*operatorv1.Report, error) { return scanReport(r) })
		return err
	})
	return out, err
}

func (o *operatorService) GetReport(ctx context.Context, req *operatorv1.GetReportRequest) (*operatorv1.GetReportResponse, error) {
	out := &operatorv1.GetReportResponse{}
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		q, err := tx.Query(ctx, `SELECT `+reportColumns+`, pdf FROM report WHERE report_id = $1`, req.GetId())
		if err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		out.Report, err = pgx.CollectExactlyOneRow(q, func(r pgx.CollectableRow) (*operatorv1.Report, error) { return scanReport(r, &out.Pdf) })
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("report %d: %w", req.GetId(), errNotFound)
		}
		if err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		// Reading a clinic's report is looking at personal data: it is written down.
		return audit.Append(ctx, tx, audit.Entry{
			Actor: caller(ctx).Name, Action: "report.read", Target: fmt.Sprintf("report:%d", req.GetId()), Clinic: out.GetReport().GetClinicId(),
		})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (o *operatorService) GetLedger(ctx context.Context, req *operatorv1.GetLedgerRequest) (*operatorv1.GetLedgerResponse, error) {
	out := &operatorv1.GetLedgerResponse{}
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		// Rows are counted, not believed: the ledger says what should be there, the events what is.
		q, err := tx.Query(ctx, `
			SELECT l.appliance_id, l.clinic_id, encode(uuid_send(l.stream_id), 'hex'), coalesce(e.n, 0), coalesce(e.n - e.distinct_n, 0),
			       coalesce(event_through(l), 0), coalesce(upper(l.got) - 1, 0),
			       coalesce(v.lost_declared, 0), coalesce(v.lost_undeclared, 0)
			FROM event_ledger l
			LEFT JOIN report_ledger v ON v.clinic_id = l.clinic_id AND v.appliance_id = l.appliance_id AND v.stream_id = l.stream_id
			LEFT JOIN (SELECT clinic_id, appliance_id, stream_id, count(*) AS n, count(DISTINCT seq) AS distinct_n FROM event
			           WHERE $1 = 0 OR appliance_id = $1 GROUP BY 1, 2, 3) e
			       ON e.clinic_id = l.clinic_id AND e.appliance_id = l.appliance_id AND e.stream_id = l.stream_id
			WHERE $1 = 0 OR l.appliance_id = $1 ORDER BY l.appliance_id, l.first_at`, req.GetApplianceId())
		if err != nil {
			return fmt.Errorf("read ledger: %w", err)
		}
		out.Streams, err = pgx.CollectRows(q, func(r pgx.CollectableRow) (*operatorv1.GetLedgerResponse_Stream, error) {
			m := &operatorv1.GetLedgerResponse_Stream{}
			var stored, dup, through, highest, declared, undeclared int64
			err := r.Scan(&m.ApplianceId, &m.ClinicId, &m.StreamId, &stored, &dup, &through, &highest, &declared, &undeclared)
			m.Stored, m.Duplicates, m.CommittedThrough, m.Highest = uint64(stored), uint64(dup), uint64(through), uint64(highest)
			m.LostDeclared, m.LostUndeclared = uint64(declared), uint64(undeclared)
			return m, err
		})
		if err != nil {
			return fmt.Errorf("read ledger: %w", err)
		}
		return nil
	})
	return out, err
}

func (o *operatorService) ListInfected(ctx context.Context, req *operatorv1.ListInfectedRequest) (*operatorv1.ListInfectedResponse, error) {
	from, to := time.Unix(0, 0), time.Unix(math.MaxInt32, 0)
	if req.GetMonth() != "" {
		var err error
		if from, to, err = month(req.GetMonth()); err != nil {
			return nil, err
		}
	}
	out := &operatorv1.ListInfectedResponse{}
	err := o.s.cfg.DB.As(ctx, []int32{req.GetClinicId()}, func(tx pgx.Tx) error {
		if err := clinic.Require(ctx, tx, req.GetClinicId()); err != nil {
			return err
		}
		// One line a device: the highest certainty, the last address, every signal.
		q, err := tx.Query(ctx, `
			SELECT coalesce(f.mac::text, ''), coalesce(host(f.ip), ''), coalesce(nullif(d.name, ''), d.hostname, ''), f.certainty, f.signals, f.first, f.last
			FROM (SELECT i.device_mac AS mac, (array_agg(i.device_ip ORDER BY i.t DESC))[1] AS ip, max(i.certainty) AS certainty,
			             coalesce(array_agg(DISTINCT s.signal ORDER BY s.signal) FILTER (WHERE s.signal IS NOT NULL), '{}') AS signals, min(i.t) AS first, max(i.t) AS last
			      FROM report_infected i LEFT JOIN LATERAL jsonb_array_elements_text(coalesce(i.signals, '[]')) s(signal) ON true
			      WHERE i.clinic_id = $1 AND i.t >= $2 AND i.t < $3
			      GROUP BY i.device_mac, CASE WHEN i.device_mac IS NULL THEN i.device_ip END) f
			LEFT JOIN device d ON d.clinic_id = $1 AND d.mac = f.mac ORDER BY f.certainty DESC, f.first`, req.GetClinicId(), from, to)
		if err != nil {
			return fmt.Errorf("list infected devices: %w", err)
		}
		out.Devices, err = pgx.CollectRows(q, func(r pgx.CollectableRow) (*operatorv1.ListInfectedResponse_Infected, error) {
			m := &operatorv1.ListInfectedResponse_Infected{}
			var certainty int16
			var first, last time.Time
			err := r.Scan(&m.Mac, &m.Ip, &m.Name, &certainty, &m.Signals, &first, &last)
			m.Certainty, m.First, m.Last = certaintyText(certainty), timestamppb.New(first), timestamppb.New(last)
			return m, err
		})
		if err != nil {
			return fmt.Errorf("list infected devices: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{
			Actor: caller(ctx).Name, Action: "infected.read", Target: fmt.Sprintf("clinic:%d", req.GetClinicId()), Clinic: req.GetClinicId(),
		})
	})
	return out, err
}

func certaintyText(n int16) string {
	switch n {
	case 1:
		return "suspected"
	case 2:
		return "likely"
	case 3:
		return "confirmed"
	default:
		return "unknown"
	}
}
