package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// send is a command that has an appliance do something.
func (s *session) send(use, short, example, action string, flags func(*cobra.Command, *operatorv1.SendCommandRequest) func()) *cobra.Command {
	req := &operatorv1.SendCommandRequest{Action: action}
	var wait time.Duration
	var finish func()
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := applianceID(args[0])
			if err != nil {
				return err
			}
			if finish != nil {
				finish()
			}
			req.ApplianceId, req.LifeS = id, int64(wait/time.Second)
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.SendCommand(ctx, req)
			if err != nil {
				return err
			}
			return s.print(resp.GetCommand(), func(t *table) {
				m := resp.GetCommand()
				t.note = "command " + m.GetId() + " is on its way; kadomori command list --appliance " + args[0] + " shows the answer"
				if m.GetState() == "awaiting" {
					t.note = "command " + m.GetId() + " waits for a second person: kadomori command approve " + m.GetId()
				}
			})
		},
	}
	if flags != nil {
		finish = flags(c, req)
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "why (needed, shown to the appliance and in the audit log)")
	c.Flags().DurationVar(&wait, "wait", 24*time.Hour, "how long it may wait for the appliance")
	_ = c.MarkFlagRequired("reason")
	return c
}

func deviceFlags(c *cobra.Command, req *operatorv1.SendCommandRequest) {
	c.Flags().StringVar(&req.Mac, "mac", "", "hardware address of the device")
	c.Flags().StringVar(&req.Ip, "ip", "", "address of the device")
}

func (s *session) commandCommand() *cobra.Command {
	var appliance int32
	list := &cobra.Command{
		Use: "list", Short: "List commands and their answers, newest first", Args: cobra.NoArgs, Example: "  kadomori command list --appliance 7",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.ListCommands(ctx, &operatorv1.ListCommandsRequest{ApplianceId: appliance})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("ID", "APPLIANCE", "ACTION", "WHAT", "STATE", "BY", "APPROVED", "CREATED", "ANSWER")
				for _, m := range resp.GetCommands() {
					answer, _, _ := strings.Cut(m.GetResult(), "\n")
					if r := []rune(answer); len(r) > 60 {
						answer = string(r[:60]) + "..."
					}
					t.row(m.GetId(), m.GetApplianceId(), m.GetAction(), m.GetDetail(), m.GetState(), m.GetIssuedBy(), m.GetApprovedBy(), m.GetCreated(), answer)
				}
			})
		},
	}
	list.Flags().Int32Var(&appliance, "appliance", 0, "one appliance only")
	decide := func(use, short string, approve bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " ID", Short: short, Args: cobra.ExactArgs(1), Example: "  kadomori command " + use + " 4f1c0000000000000000000000000000",
			RunE: func(cmd *cobra.Command, args []string) error {
				ctx, op, err := s.open(cmd.Context())
				if err != nil {
					return err
				}
				resp, err := op.DecideCommand(ctx, &operatorv1.DecideCommandRequest{Id: args[0], Approve: approve})
				if err != nil {
					return err
				}
				return s.print(resp, func(t *table) { t.note = use + "d: " + args[0] })
			},
		}
	}
	return group("command", "Things an appliance does once", list,
		s.send("quarantine APPLIANCE", "Cut a device off", "  kadomori command quarantine 7 --ip 192.168.11.21 --reason \"contacts a command server\"", "quarantine",
			func(c *cobra.Command, req *operatorv1.SendCommandRequest) func() {
				deviceFlags(c, req)
				var d time.Duration
				c.Flags().DurationVar(&d, "for", 0, "it ends by itself after this time (0: when released)")
				return func() { req.ForS = int64(d / time.Second) }
			}),
		s.send("release APPLIANCE", "End a quarantine", "  kadomori command release 7 --ip 192.168.11.21 --reason \"cleaned\"", "release",
			func(c *cobra.Command, req *operatorv1.SendCommandRequest) func() { deviceFlags(c, req); return nil }),
		s.send("bypass APPLIANCE", "Forward everything uninspected for a while", "  kadomori command bypass 7 --for 30m --reason \"vendor measures the line\"", "bypass",
			func(c *cobra.Command, req *operatorv1.SendCommandRequest) func() {
				var d time.Duration
				var off bool
				c.Flags().DurationVar(&d, "for", 10*time.Minute, "how long, at most 24h")
				c.Flags().BoolVar(&off, "off", false, "end a bypass now")
				return func() {
					if req.On = !off; req.On {
						req.ForS = int64(d / time.Second)
					}
				}
			}),
		s.send("self-test APPLIANCE", "Make one synthetic detection", "  kadomori command self-test 7 --reason \"after the visit\"", "self_test", nil),
		s.send("diagnostic APPLIANCE", "Fetch the agent's status", "  kadomori command diagnostic 7 --reason \"ticket 812\"", "diagnostic", nil),
		s.send("factory-reset APPLIANCE", "Make the appliance forget its identity, bundles and events", "  kadomori command factory-reset 7 --reason \"goes back to stock\"", "factory_reset", nil),
		decide("approve", "Let a command go out that waits for a second person", true),
		decide("cancel", "Take back a command that waits for a second person", false))
}
