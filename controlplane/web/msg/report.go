//nolint:revive // a message's comment is its text
package msg

// Words of the overview and of reports.

// Verdict is the mark of a report, with its symbol.
func (p P) Verdict(v string) string {
	switch v {
	case "ok":
		return p.pick("● 良好", "● Good")
	case "warn":
		return p.pick("▲ 要確認", "▲ To check")
	case "act":
		return p.pick("■ 要対応", "■ To act on")
	case "hold":
		return p.pick("? 判定保留", "? On hold")
	}
	return "—"
}

func (p P) ReportsSum(ready, clinics int, month string) string {
	return p.f("%[3]s分は%[2]d院中%[1]d院が作成済み", "%[3]s: ready for %[1]d of %[2]d clinics", ready, clinics, month)
}
func (p P) ReportMake() string   { return p.pick("作成する", "Create") }
func (p P) ReportRemake() string { return p.pick("作り直す", "Create again") }
func (p P) ReportRemakeNote() string {
	return p.pick("作り直すと、新しい版として残ります。これまでの版は消えません。", "A new revision is added; earlier ones stay.")
}
func (p P) ReportWaiting() string { return p.pick("作成中", "Being made") }
func (p P) ReportFailed() string {
	return p.pick("作成に失敗・再試行中", "Failed, trying again")
}
func (p P) ReportNone() string { return p.pick("未作成", "Not made") }
func (p P) ReportAsked() string {
	return p.pick("報告の作成を依頼しました。できあがると、この画面に表示されます。", "The report has been requested. It appears here when it is ready.")
}

func (p P) ReportAskedBefore() string {
	return p.pick("この報告は、すでに作成中です。", "This report is being made already.")
}

func (p P) ReportTitle(clinic, month string) string {
	return p.f("%[1]s %[2]sの報告", "%[1]s, report of %[2]s", clinic, month)
}
func (p P) ReportPDF() string      { return p.pick("PDFを開く", "Open the PDF") }
func (p P) ReportDownload() string { return p.pick("PDFを保存", "Save the PDF") }
func (p P) ReportPageName() string { return p.pick("報告書の本文", "The report itself") }
func (p P) ReportDoc() string      { return p.pick("文書番号", "Document") }
func (p P) ReportRev() string      { return p.pick("版", "Revision") }
func (p P) ReportRevN(n int) string {
	return p.f("第%d版", "Revision %d", n)
}
func (p P) ReportCreated() string  { return p.pick("確定日時", "Frozen at") }
func (p P) ReportData() string     { return p.pick("データの指紋", "Data digest") }
func (p P) ReportDigest() string   { return p.pick("PDFの指紋", "PDF digest") }
func (p P) ReportRenderer() string { return p.pick("作成プログラム", "Renderer") }
func (p P) ReportVerdict() string  { return p.pick("判定", "Mark") }
func (p P) ReportRevs() string     { return p.pick("これまでの版", "Revisions") }
func (p P) ReportMissing() string {
	return p.pick("この月の報告は、まだ作成されていません。", "The report of this month has not been made yet.")
}

func (p P) ReportFuture() string {
	return p.pick("まだ始まっていない月の報告は作成できません。", "A month that has not begun can't be reported.")
}

func (p P) ReportRunning() string {
	return p.pick("月の途中です。作成すると、ここまでの分の報告になります。", "The month is not over; the report will cover it so far.")
}

func (p P) EmptyReports() string {
	return p.pick("報告はまだありません", "No reports yet")
}
func (p P) ColMonth() string { return p.pick("月", "Month") }

func (p P) OverviewSum(clinics, boxes int) string {
	return p.f("%s院・装置%s台", "%s clinics, %s appliances", Number(int64(clinics)), Number(int64(boxes)))
}

func (p P) NeedHuman() string {
	return p.pick("いま人の確認が必要なもの", "Needs a human now")
}

func (p P) NeedNothing() string {
	return p.pick("いま確認が必要なものはありません", "Nothing needs a human now")
}

func (p P) NeedCritical(n int64) string {
	return p.f("深刻度「緊急」の未判定の検知が%s件", "%s critical alerts without a verdict", Number(n))
}

func (p P) NeedHigh(n int64) string {
	return p.f("深刻度「高」の未判定の検知が%s件", "%s alerts of high severity without a verdict", Number(n))
}

func (p P) NeedOffline(n int) string {
	return p.f("装置%d台がオフライン", "%d "+en1(int64(n), "appliance", "appliances")+" offline", n)
}

func (p P) NeedRefused(n int) string {
	return p.f("装置%d台が設定を拒否", "%d "+en1(int64(n), "appliance", "appliances")+" refused a bundle", n)
}

func (p P) NeedPending(n int) string {
	return p.f("装置%d台が承認待ち", "%d "+en1(int64(n), "appliance waits", "appliances wait")+" for approval", n)
}

func (p P) NeedLost(n int64) string {
	return p.f("申告のない欠落が%s件", "%s events missing without a declaration", Number(n))
}
func (p P) Protection() string      { return p.pick("保護の状態", "Protection") }
func (p P) ProtInspectN() string    { return p.pick("検査中", "Inspecting") }
func (p P) ProtOfflineN() string    { return p.pick("オフライン", "Offline") }
func (p P) ProtUnprotToday() string { return p.pick("今日の検査停止", "Uninspected today") }
func (p P) BoxesOf(n, of int) string {
	return p.f("%[2]d台中%[1]d台", "%[1]d of %[2]d", n, of)
}
func (p P) MonthEnd(month string) string { return p.f("%s分の報告", "Reports of %s", month) }
func (p P) TopDetections() string {
	return p.pick("優先度の高い検知（24時間）", "Most urgent detections (24 h)")
}

func (p P) BusyClinics() string {
	return p.pick("確認の優先度が高いクリニック", "Clinics to look at first")
}
func (p P) CoverageToday() string { return p.pick("24時間の観測範囲", "Coverage of 24 h") }
func (p P) SeeAll() string        { return p.pick("すべて見る", "See all") }

// ClinicsOf counts clinics among clinics.
func (p P) ClinicsOf(n, of int) string {
	return p.f("%[2]d院中%[1]d院", "%[1]d of %[2]d", n, of)
}

// ReadyWord says that a report exists.
func (p P) ReadyWord() string { return p.pick("作成済み", "ready") }
