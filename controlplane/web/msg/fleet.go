//nolint:revive // a message's comment is its text
package msg

import "time"

// Words of clinics and appliances.

func (p P) ClinicsSum(clinics, need int) string {
	if p.english {
		s := p.f("", "%s "+en1(int64(clinics), "clinic", "clinics"), Number(int64(clinics)))
		if need > 0 {
			s += p.f("", ", %s "+en1(int64(need), "needs", "need")+" a human", Number(int64(need)))
		}
		return s
	}
	if need == 0 {
		return p.f("%s院", "", Number(int64(clinics)))
	}
	return p.f("%s院、うち%s院に確認が必要です", "", Number(int64(clinics)), Number(int64(need)))
}
func (p P) ColCode() string       { return p.pick("番号", "Code") }
func (p P) ColName() string       { return p.pick("名称", "Name") }
func (p P) ColPlan() string       { return p.pick("プラン", "Plan") }
func (p P) ColProtection() string { return p.pick("保護", "Protection") }
func (p P) ColLink() string       { return p.pick("回線", "Link") }
func (p P) ColIntent() string     { return p.pick("設定", "Intent") }
func (p P) ColAlerts24() string   { return p.pick("検知24時間", "Alerts 24 h") }
func (p P) ColCoverage() string   { return p.pick("今月の稼働", "Up this month") }
func (p P) ColReport() string     { return p.pick("報告", "Report") }
func (p P) ColDevices() string    { return p.pick("機器", "Devices") }
func (p P) ColVersion() string    { return p.pick("版", "Version") }
func (p P) ColSerial() string     { return p.pick("製造番号", "Serial") }
func (p P) ColRules() string      { return p.pick("検知ルール", "Rules") }
func (p P) ColClock() string      { return p.pick("時計の差", "Clock") }
func (p P) ColSpool() string      { return p.pick("未受信", "Spooled") }
func (p P) ColSelfTest() string   { return p.pick("自己診断", "Self-test") }
func (p P) ColLost() string       { return p.pick("欠落", "Lost") }
func (p P) ColState() string      { return p.pick("状態", "State") }
func (p P) WithOverride() string  { return p.pick("＋個別設定", "+ override") }

func (p P) LinkOnline() string { return p.pick("オンライン", "Online") }
func (p P) LinkNever() string  { return p.pick("未接続", "Never seen") }
func (p P) LinkLast(t, now time.Time) string {
	return p.f("最終 %s", "Last %s", p.Time(t, now))
}

func (p P) LinkSilent(d time.Duration) string {
	return p.f("%s未受信", "silent for %s", p.Ago(d))
}

func (p P) LinkCount(online, boxes int) string {
	if boxes == 0 {
		return p.pick("装置なし", "No appliance")
	}
	return p.f("%d / %d台", "%d / %d", online, boxes)
}
func (p P) IntentSame() string    { return p.pick("一致", "In sync") }
func (p P) IntentPending() string { return p.pick("反映中", "Applying") }
func (p P) IntentRefused() string { return p.pick("拒否", "Refused") }
func (p P) IntentDrifted() string { return p.pick("ずれ", "Drifted") }
func (p P) IntentNone() string    { return p.pick("未発行", "Nothing published") }

func (p P) ProtInspecting() string { return p.pick("検査中", "Inspecting") }
func (p P) ProtObserving() string  { return p.pick("観測のみ", "Observing only") }
func (p P) ProtUnknown() string    { return p.pick("不明", "Unknown") }
func (p P) ProtInterrupted(ms int64) string {
	return p.f("検査中・停止%s", "Inspecting, off for %s", p.Millis(ms))
}

func (p P) ProtSome(inspecting, boxes int) string {
	return p.f("検査中 %d / %d台", "Inspecting %d / %d", inspecting, boxes)
}

// WireMode names how a box sits on the wire.
func (p P) WireMode(m string) string {
	switch m {
	case "inline-native":
		return p.pick("透過（高速）", "Inline, native")
	case "inline-generic":
		return p.pick("透過（汎用）", "Inline, generic")
	case "tap":
		return p.pick("ミラー観測", "Mirror port")
	case "pcap":
		return p.pick("記録ファイル", "Capture file")
	}
	return p.pick("未報告", "Not reported")
}

// BoxState names the state of an appliance's enrolment.
func (p P) BoxState(s string) string {
	switch s {
	case "claimed":
		return p.pick("登録待ち", "Waiting to be plugged in")
	case "pending":
		return p.pick("承認待ち", "Waiting for approval")
	case "approved":
		return p.pick("運用中", "In service")
	case "rejected":
		return p.pick("却下", "Rejected")
	case "revoked":
		return p.pick("失効", "Revoked")
	case "retired":
		return p.pick("撤去", "Retired")
	}
	return s
}

// Cause names why a box forwarded without inspection; the words are those of event/v1.
func (p P) Cause(c string) string {
	switch c {
	case "agent_stopped":
		return p.pick("停止・更新", "Orderly stop or update")
	case "agent_died":
		return p.pick("検査処理の異常終了", "Agent died")
	case "agent_stale":
		return p.pick("検査処理の応答なし", "Agent did not answer")
	case "bypass":
		return p.pick("手動の迂回", "Bypass by hand")
	case "no_socket":
		return p.pick("受け口なし", "Queue without socket")
	case "overload":
		return p.pick("過負荷", "Overload")
	}
	return p.pick("原因の記載なし", "Cause not stated")
}

func (p P) AppliancesSum(boxes, attention int) string {
	if p.english {
		s := p.f("", "%s "+en1(int64(boxes), "appliance", "appliances"), Number(int64(boxes)))
		if attention > 0 {
			s += p.f("", ", %s "+en1(int64(attention), "needs", "need")+" attention", Number(int64(attention)))
		}
		return s
	}
	if attention == 0 {
		return p.f("%s台", "", Number(int64(boxes)))
	}
	return p.f("%s台、うち%s台に確認が必要です", "", Number(int64(boxes)), Number(int64(attention)))
}
func (p P) ViewAttention() string { return p.pick("要確認", "Needs attention") }
func (p P) ViewOffline() string   { return p.pick("オフライン", "Offline") }
func (p P) ViewRefused() string   { return p.pick("設定を拒否", "Refused") }
func (p P) ViewPending() string   { return p.pick("承認待ち", "Waiting for approval") }

func (p P) EmptyClinics() string {
	return p.pick("クリニックはまだ登録されていません", "No clinics yet")
}

func (p P) EmptyClinicsHow() string {
	return p.pick("運用端末で次のように登録すると、ここに並びます。", "Create one on the command line and it appears here.")
}

func (p P) EmptyAppliances() string {
	return p.pick("装置はまだ登録されていません", "No appliances yet")
}

func (p P) EmptyAppliancesHow() string {
	return p.pick("登録票（クレーム）を発行し、装置で読み込むと、ここに並びます。", "Issue a claim and give it to the box; it then appears here.")
}

func (p P) FilteredRows(n int) string {
	return p.f("条件により%d件が隠れています", "%d hidden by filters", n)
}

func (p P) TabSummary() string  { return p.pick("まとめ", "Summary") }
func (p P) TabDevices() string  { return p.pick("機器台帳", "Devices") }
func (p P) TabCoverage() string { return p.pick("観測範囲", "Coverage") }
func (p P) TabReports() string  { return p.pick("報告", "Reports") }

func (p P) Director() string   { return p.pick("院長", "Director") }
func (p P) HoursOpen() string  { return p.pick("診療時間", "Opening hours") }
func (p P) Since() string      { return p.pick("開始", "Since") }
func (p P) Alerts24h() string  { return p.pick("過去24時間の検知", "Alerts in 24 h") }
func (p P) BoxesTitle() string { return p.pick("装置", "Appliances") }
func (p P) NotStated() string  { return p.pick("未登録", "Not stated") }
func (p P) OverrideBy(why string, until string) string {
	return p.f("個別設定あり: %s（期限 %s）", "Override: %s (until %s)", why, until)
}
func (p P) NoExpiry() string { return p.pick("なし", "none") }

func (p P) CoverMonth(month string) string {
	return p.f("%sの観測", "Coverage in %s", month)
}

func (p P) CoverChart(month string, share string, unprotected string) string {
	return p.f("%sの日ごとの稼働。全体で%s、検査停止は合計%s", "Daily coverage in %s: %s overall, uninspected %s in total", month, share, unprotected)
}
func (p P) LegendUp() string      { return p.pick("検査した時間", "Inspected") }
func (p P) LegendUnprot() string  { return p.pick("検査停止時間", "Uninspected") }
func (p P) LegendMissing() string { return p.pick("報告なし", "Not reported") }
func (p P) UpShare() string       { return p.pick("稼働率", "Up") }
func (p P) UnprotTotal() string   { return p.pick("検査停止時間", "Uninspected time") }
func (p P) PacketsLost() string   { return p.pick("取りこぼし", "Packets lost") }
func (p P) Packets(n int64) string {
	return p.f("%sパケット", "%s packets", Number(n))
}
func (p P) VisShare() string { return p.pick("中身の見え方", "Visibility") }
func (p P) VisText(clearB, named, opaque int64) string {
	t := clearB + named + opaque
	if t == 0 {
		return p.pick("通信の記録なし", "No traffic on record")
	}
	pc := func(x int64) string { return p.Percent(float64(x) / float64(t)) }
	return p.f("平文%s・宛先名のみ%s・暗号%s", "clear %s, name only %s, opaque %s", pc(clearB), pc(named), pc(opaque))
}

func (p P) UnprotTitle() string {
	return p.pick("検査を通らずに流れた時間", "Forwarded without inspection")
}

func (p P) UnprotNone() string {
	return p.pick("今月、検査停止の記録はありません。", "No uninspected time on record this month.")
}
func (p P) ColFrom() string   { return p.pick("開始", "From") }
func (p P) ColLength() string { return p.pick("長さ", "Length") }
func (p P) ColCause() string  { return p.pick("原因", "Cause") }
func (p P) LedgerTitle() string {
	return p.pick("届いた記録の連番", "Sequence of received events")
}
func (p P) ColReceived() string { return p.pick("受信", "Received") }
func (p P) LostDeclared() string {
	return p.pick("申告済みの欠落", "Declared lost")
}
func (p P) LostUndeclared() string { return p.pick("不明な欠落", "Undeclared lost") }
func (p P) LedgerFine(n int64) string {
	return p.f("%s件を受信、欠落は0件です（連番で確認）。", "%s events received, 0 missing (by sequence number).", Number(n))
}

func (p P) LedgerNone() string {
	return p.pick("この装置からの記録は、まだありません。", "Nothing received from this box yet.")
}

func (p P) DevicesSum(named, guests int) string {
	return p.f("%d台（ほかに患者用などの匿名機器 %d台）", "%d devices (and %d anonymous guest devices)", named, guests)
}

func (p P) DevicesNone() string {
	return p.pick("機器はまだ観測されていません", "No devices seen yet")
}

func (p P) DevicesNoneWhy() string {
	return p.pick("装置がARPとDHCPから機器を見つけると、ここに並びます。", "They appear as the appliance learns them from ARP and DHCP.")
}
func (p P) ColMAC() string       { return p.pick("MACアドレス", "MAC address") }
func (p P) ColIP() string        { return p.pick("IPアドレス", "IP address") }
func (p P) ColZone() string      { return p.pick("区画", "Zone") }
func (p P) ColFirstSeen() string { return p.pick("初めて観測", "First seen") }
func (p P) ColLastSeen() string  { return p.pick("最後に観測", "Last seen") }
func (p P) Unseen30() string     { return p.pick("30日未観測", "unseen for 30 d") }
func (p P) GuestDevice() string  { return p.pick("匿名の機器", "Anonymous device") }
func (p P) NoName() string       { return p.pick("名称なし", "No name") }

// Zone names a part of a clinic's network; the words are those of the policy.
func (p P) Zone(z string) string {
	switch z {
	case "clinical":
		return p.pick("業務用", "Clinical")
	case "guest":
		return p.pick("患者用", "Guest")
	case "iot":
		return p.pick("機器", "IoT")
	case "vendor":
		return p.pick("保守", "Vendor")
	case "eligibility":
		return p.pick("資格確認", "Eligibility check")
	case "wan":
		return p.pick("外部", "WAN")
	case "":
		return "—"
	}
	return z
}

// Suspicion says how sure we are that a device is infected: 1..3.
func (p P) Suspicion(c int) string {
	switch c {
	case 3:
		return p.pick("感染を確認", "Infection confirmed")
	case 2:
		return p.pick("感染の可能性が高い", "Infection likely")
	case 1:
		return p.pick("感染の疑い", "Infection suspected")
	}
	return ""
}

func (p P) BoxFacts() string      { return p.pick("装置の状態", "Appliance") }
func (p P) BoxBundles() string    { return p.pick("設定と検知ルール", "Policy and rules") }
func (p P) BoxPolicy() string     { return p.pick("ポリシー", "Policy") }
func (p P) BoxSignatures() string { return p.pick("検知ルール", "Signatures") }
func (p P) BoxRunning() string    { return p.pick("動作中", "Running") }
func (p P) BoxWanted() string     { return p.pick("発行済み", "Published") }
func (p P) VersionNo(v int64) string {
	if v == 0 {
		return p.pick("なし", "none")
	}
	return p.f("第%s版", "version %s", Number(v))
}
func (p P) RefusedWhy() string  { return p.pick("拒否の理由", "Reason of refusal") }
func (p P) Certificate() string { return p.pick("証明書の期限", "Certificate ends") }
func (p P) CertNone() string    { return p.pick("有効な証明書なし", "No valid certificate") }

func (p P) ClockOff(ms int64) string {
	if ms < 0 {
		return p.f("%sミリ秒遅れ", "%s ms slow", Number(-ms))
	}
	return p.f("%sミリ秒進み", "%s ms fast", Number(ms))
}
func (p P) NotMeasured() string { return p.pick("未測定", "Not measured") }
func (p P) NotReported() string { return p.pick("未報告", "Not reported") }
func (p P) SpoolDepth(n int64) string {
	return p.f("%s件", "%s events", Number(n))
}

func (p P) SelfTestOK(t, now time.Time) string {
	return p.f("成功 %s", "Passed %s", p.Time(t, now))
}

func (p P) SelfTestBad(t, now time.Time) string {
	return p.f("失敗 %s", "Failed %s", p.Time(t, now))
}

func (p P) LastHealth(t string) string {
	return p.f("最後の稼働報告 %s", "Last health report %s", t)
}

func (p P) RulesLoaded(n, refused int64) string {
	if refused == 0 {
		return p.f("%s件", "%s", Number(n))
	}
	return p.f("%s件（読めなかったもの %s件）", "%s (%s refused)", Number(n), Number(refused))
}
func (p P) Hours48() string { return p.pick("直近48時間の稼働", "Last 48 hours") }
func (p P) Hours48Label(share string) string {
	return p.f("直近48時間の1時間ごとの稼働。全体で%s", "Hourly coverage of the last 48 hours: %s overall", share)
}
