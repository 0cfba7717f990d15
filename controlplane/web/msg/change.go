//nolint:revive // a message's comment is its text
package msg

// Words of enrolment, policy and rollouts.

func (p P) Enrolment() string { return p.pick("登録", "Enrolment") }

func (p P) EnrolSum(waiting int) string {
	if waiting == 0 {
		return p.pick("承認待ちはありません", "Nothing waits for approval")
	}
	return p.f("%d台が承認を待っています", "%d "+en1(int64(waiting), "waits", "wait")+" for approval", waiting)
}

func (p P) EmptyEnrolment() string {
	return p.pick("登録中の装置はありません", "No appliance is on its way")
}

func (p P) EmptyEnrolmentWhy() string {
	return p.pick("登録票を発行すると、ここに並びます。登録票は一度だけ使え、期限があります。", "Issue a claim and it appears here. A claim works once and ends by itself.")
}

// EnrolStep names how far a box came.
func (p P) EnrolStep(s string) string {
	switch s {
	case "claimed":
		return p.pick("登録票を発行", "Claim issued")
	case "expired":
		return p.pick("期限切れ", "Claim expired")
	case "pending":
		return p.pick("承認待ち", "Waiting for approval")
	case "admitted":
		return p.pick("承認済み・設定待ち", "Approved, no policy yet")
	case "policy":
		return p.pick("設定済み・自己診断待ち", "Policy runs, no self-test yet")
	case "service":
		return p.pick("運用中", "In service")
	}
	return p.pick("却下・失効", "Rejected or revoked")
}
func (p P) ColClaim() string { return p.pick("登録票", "Claim") }
func (p P) ColKey() string   { return p.pick("鍵の指紋", "Key") }
func (p P) ClaimNew() string { return p.pick("登録票を発行", "Issue a claim") }
func (p P) ClaimName() string {
	return p.pick("装置の名称（空欄なら自動）", "Name of the appliance (empty: automatic)")
}

func (p P) ClaimSerial() string {
	return p.pick("製造番号（限定するとき）", "Serial, to bind it")
}

func (p P) ClaimAuto() string {
	return p.pick("この登録票の装置を、つながり次第承認する", "Approve the box as soon as it shows this claim")
}
func (p P) ClaimDo() string           { return p.pick("発行する", "Issue") }
func (p P) ClaimBy(who string) string { return p.f("発行 %s", "issued by %s", who) }
func (p P) ClaimOnce() string {
	return p.pick("登録票は、この画面に一度だけ表示されます。装置の設定画面または次のコマンドに貼り付けてください。", "The claim is shown only once, here. Paste it into the appliance or this command.")
}

func (p P) ClaimUntil(t string) string {
	return p.f("%s まで有効・一度だけ使えます", "valid until %s, works once", t)
}
func (p P) ClaimBack() string { return p.pick("登録の一覧へ", "Back to the list") }
func (p P) ClaimBad() string {
	return p.pick("クリニックと名称をご確認ください。", "Check clinic and name.")
}
func (p P) RejectDo() string    { return p.pick("却下する", "Reject") }
func (p P) RevokeDo() string    { return p.pick("失効させる", "Revoke") }
func (p P) RevokeWhy() string   { return p.pick("理由", "Reason") }
func (p P) ApprovedBox() string { return p.pick("装置を承認しました", "Appliance approved") }

func (p P) RevokedBox() string { return p.pick("装置を却下しました", "Appliance rejected") }

func (p P) WillBecome(clinic, plan string) string {
	return p.f("%s・プラン「%s」", "%s, plan %s", clinic, plan)
}

func (p P) BadgeEnrol(n string) string { return p.f("承認待ち %s台", "%s wait for approval", n) }

func (p P) Policy() string { return p.pick("ポリシー", "Policy") }
func (p P) PolicySum(plans, overrides int) string {
	return p.f("プラン%d・個別設定%d", "%d plans, %d overrides", plans, overrides)
}
func (p P) Plans() string     { return p.pick("プラン", "Plans") }
func (p P) Overrides() string { return p.pick("個別設定", "Overrides") }
func (p P) NoOverrides() string {
	return p.pick("個別設定はありません。すべてのクリニックがプランどおりです。", "No overrides: every clinic follows its plan.")
}
func (p P) ColRevision() string           { return p.pick("版", "Revision") }
func (p P) ColUpdated() string            { return p.pick("更新", "Updated") }
func (p P) ColSetting() string            { return p.pick("設定", "Setting") }
func (p P) ColValue() string              { return p.pick("効いている値", "Effective value") }
func (p P) ColLayer() string              { return p.pick("由来", "Layer") }
func (p P) PolicyOf(clinic string) string { return p.f("%sのポリシー", "Policy of %s", clinic) }

func (p P) PolicyView() string { return p.pick("効いている設定を見る", "Effective settings") }

func (p P) PolicyBroken() string {
	return p.pick("設定に矛盾があり、まとめられません。", "The layers contradict each other.")
}

func (p P) PolicyEdit() string {
	return p.pick("変更は運用コマンド（kadomori plan apply / kadomori override set）から行い、展開として広がります。", "Changes are made on the command line (kadomori plan apply, kadomori override set) and spread as a rollout.")
}

// Layer names where a setting comes from.
func (p P) Layer(l string) string {
	switch l {
	case "default":
		return p.pick("既定", "Default")
	case "plan":
		return p.pick("プラン", "Plan")
	case "group":
		return p.pick("グループ", "Group")
	case "clinic":
		return p.pick("クリニック", "Clinic")
	case "system":
		return p.pick("システム", "System")
	}
	return l
}

// Section names a part of a policy by the first word of its paths.
func (p P) Section(s string) string {
	switch s {
	case "home_net":
		return p.pick("院内のネットワーク", "Inside networks")
	case "zones":
		return p.pick("区画", "Zones")
	case "lists":
		return p.pick("遮断リスト", "Block lists")
	case "detectors":
		return p.pick("検知", "Detectors")
	case "rules":
		return p.pick("検知ルール", "Rules")
	case "never_block":
		return p.pick("遮断しない宛先", "Never blocked")
	case "intervals":
		return p.pick("報告の間隔", "Intervals")
	case "uplink":
		return p.pick("送信", "Uplink")
	}
	return s
}
func (p P) UntilDate(d string) string { return p.f("%s まで", "until %s", d) }

func (p P) Rollouts() string { return p.pick("展開", "Rollouts") }
func (p P) RolloutsSum(running, halted int) string {
	if halted > 0 {
		return p.f("%d件が進行中、%d件が停止中", "%d running, %d halted", running, halted)
	}
	return p.f("%d件が進行中", "%d running", running)
}

func (p P) EmptyRollouts() string { return p.pick("展開はまだありません", "No rollouts yet") }

func (p P) EmptyRolloutsWhy() string {
	return p.pick("プランまたは検知ルールを変更すると、リングごとに広がります。", "A change of a plan or of rules spreads ring by ring.")
}
func (p P) RolloutNo(n int64) string { return p.f("R-%d", "R-%d", n) }
func (p P) RolloutKind(k, subject string) string {
	if k == "policy" {
		return p.f("ポリシー「%s」", "Policy %q", subject)
	}
	return p.pick("検知ルール", "Detection rules")
}

func (p P) RolloutVersions(from, to int64) string {
	return p.f("第%d版 → 第%d版", "%d → %d", from, to)
}

// RolloutState names the state of a rollout.
func (p P) RolloutState(s string) string {
	switch s {
	case "draft":
		return p.pick("下書き", "Draft")
	case "running":
		return p.pick("進行中", "Running")
	case "paused":
		return p.pick("一時停止", "Paused")
	case "halted":
		return p.pick("自動停止", "Auto-halted")
	case "rolling_back":
		return p.pick("戻しています", "Rolling back")
	case "rolled_back":
		return p.pick("戻しました", "Rolled back")
	case "done":
		return p.pick("完了", "Done")
	case "aborted":
		return p.pick("中止", "Aborted")
	}
	return s
}

// TargetState names the state of one appliance in a rollout.
func (p P) TargetState(s string) string {
	switch s {
	case "waiting":
		return p.pick("待機", "Waiting")
	case "applied":
		return p.pick("反映中", "Applying")
	case "ok":
		return p.pick("反映済み", "Applied, healthy")
	case "failed appliances":
		return p.pick("失敗", "Failed")
	case "offline":
		return p.pick("オフライン・戻り次第", "Offline, applies on return")
	case "reverted":
		return p.pick("自動で戻った", "Reverted")
	}
	return s
}
func (p P) ColKind() string         { return p.pick("種類", "Kind") }
func (p P) ColVersions() string     { return p.pick("版", "Version") }
func (p P) ColRing() string         { return p.pick("リング", "Ring") }
func (p P) ColStarted() string      { return p.pick("開始", "Started") }
func (p P) RingOf(n, of int) string { return p.f("%[2]d中%[1]d", "%[1]d of %[2]d", n, of) }
func (p P) RingApplied(n, of int) string {
	return p.f("%[2]d台中%[1]d台に反映", "%[1]d of %[2]d applied", n, of)
}

func (p P) RingFailed(n int) string {
	return p.f("%d台が失敗、または自動で戻りました", "%d failed or reverted", n)
}
func (p P) RingDone() string  { return p.pick("完了", "Done") }
func (p P) RingNow() string   { return p.pick("進行中", "Under way") }
func (p P) RingWait() string  { return p.pick("待機", "Waiting") }
func (p P) Gates() string     { return p.pick("停止の条件", "Gates") }
func (p P) ColGate() string   { return p.pick("条件", "Gate") }
func (p P) ColNow() string    { return p.pick("現在", "Now") }
func (p P) ColLimit() string  { return p.pick("停止値", "Halts at") }
func (p P) ColResult() string { return p.pick("結果", "Result") }

// Gate names a gate by its key.
func (p P) Gate(k string) string {
	switch k {
	case "failed appliances":
		return p.pick("失敗した装置", "Failed appliances")
	case "unprotected time":
		return p.pick("検査停止時間", "Uninspected time")
	case "blocks an hour":
		return p.pick("遮断数（7日平均との比）", "Blocks against 7 days")
	case "alerts an hour":
		return p.pick("検知数（7日平均との比）", "Alerts against 7 days")
	}
	return k
}

func (p P) GatesNone() string {
	return p.pick("まだどの装置にも届いていません。", "Nobody has been reached yet.")
}
func (p P) ByAppliance() string { return p.pick("装置ごと", "By appliance") }

// RolloutDo names an action on a rollout.
func (p P) RolloutDo(a string) string {
	switch a {
	case "start":
		return p.pick("開始する", "Start")
	case "pause":
		return p.pick("一時停止する", "Pause")
	case "resume":
		return p.pick("除外して再開する", "Exclude and resume")
	case "abort":
		return p.pick("中止する", "Abort")
	case "rollback":
		return p.pick("すべて戻す", "Roll back all")
	}
	return a
}
func (p P) RolloutWhy() string     { return p.pick("理由", "Reason") }
func (p P) RolloutWhyAuto() string { return p.pick("状態", "Where it stands") }
func (p P) BadgeRollouts(n string) string {
	return p.f("進行中または停止中の展開 %s件", "%s rollouts running or halted", n)
}
func (p P) Saved() string { return p.pick("反映しました", "Done") }
