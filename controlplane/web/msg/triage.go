//nolint:revive // a message's comment is its text
package msg

// Words of the triage screen.

// Severity names a severity of event/v1: 5 critical to 1 info.
func (p P) Severity(s int) string {
	switch s {
	case 5:
		return p.pick("緊急", "Critical")
	case 4:
		return p.pick("高", "High")
	case 3:
		return p.pick("中", "Medium")
	case 2:
		return p.pick("低", "Low")
	}
	return p.pick("情報", "Info")
}

// Category names a category of event/v1 in a word short enough for a row.
func (p P) Category(c string) string {
	switch c {
	case "bot":
		return p.pick("ボット", "Bot")
	case "malware":
		return p.pick("マルウェア", "Malware")
	case "intrusion":
		return p.pick("不正侵入", "Intrusion")
	case "bad_site":
		return p.pick("不審な通信先", "Bad site")
	case "scan":
		return p.pick("探索", "Scan")
	case "policy":
		return p.pick("利用ルール", "Policy")
	}
	return p.pick("その他", "Other")
}

// Action names what became of the traffic.
func (p P) Action(a string) string {
	switch a {
	case "blocked":
		return p.pick("遮断", "Blocked")
	case "passed":
		return p.pick("通過", "Passed")
	}
	return p.pick("不明", "Unknown")
}

// Certainty is the rung of the report's ladder: 1 to 3.
func (p P) Certainty(c int) string {
	switch c {
	case 3:
		return p.pick("確認済み（通信上の事実）", "Confirmed (a fact on the wire)")
	case 2:
		return p.pick("可能性が高い（独立した兆候2件以上）", "Likely (2 or more independent signals)")
	case 1:
		return p.pick("疑いがある（兆候1件）", "Suspected (1 signal)")
	}
	return p.pick("確からしさの記載なし（シグネチャ一致）", "Not stated (signature match)")
}

func (p P) TriageSum(alerts int64, groups, clinics int) string {
	if p.english {
		return p.f("", "%s "+en1(alerts, "alert", "alerts")+" in %s "+en1(int64(groups), "group", "groups")+", %s "+
			en1(int64(clinics), "clinic", "clinics"), Number(alerts), Number(int64(groups)), Number(int64(clinics)))
	}
	return p.f("%s件の検知を%sグループに集約（%sクリニック）", "", Number(alerts), Number(int64(groups)), Number(int64(clinics)))
}

func (p P) TriageFlatSum(rows, alerts int64) string {
	return p.f("%s行・検知%s件を新しい順に表示", "%s rows, %s alerts, newest first", Number(rows), Number(alerts))
}
func (p P) GroupBy() string  { return p.pick("まとめ方", "Grouping") }
func (p P) GroupSig() string { return p.pick("検知名 › クリニック", "Signature › clinic") }

func (p P) GroupPair() string { return p.pick("検知名 × クリニック", "Signature × clinic") }
func (p P) GroupNone() string { return p.pick("1件ずつ", "Every alert") }

func (p P) Views() string       { return p.pick("表示", "Views") }
func (p P) ViewAll() string     { return p.pick("すべて", "All") }
func (p P) ViewUrgent() string  { return p.pick("緊急・高", "Critical + high") }
func (p P) ViewPassed() string  { return p.pick("通過あり", "Passed") }
func (p P) ViewBot() string     { return p.pick("ボット・マルウェア", "Bots + malware") }
func (p P) ViewPolicy() string  { return p.pick("利用ルール", "Policy") }
func (p P) Last24() string      { return p.pick("過去24時間", "Last 24 h") }
func (p P) Last7d() string      { return p.pick("過去7日", "Last 7 d") }
func (p P) Last30d() string     { return p.pick("過去30日", "Last 30 d") }
func (p P) PeriodLabel() string { return p.pick("期間", "Period") }
func (p P) AddFilter() string   { return p.pick("条件を追加", "Add filter") }
func (p P) ChipSev() string     { return p.pick("深刻度", "Severity") }
func (p P) ChipCat() string     { return p.pick("分類", "Category") }
func (p P) ChipAction() string  { return p.pick("結果", "Outcome") }
func (p P) ChipText() string    { return p.pick("語句", "Text") }
func (p P) ChipRule() string    { return p.pick("検知", "Detection") }
func (p P) ChipClinic() string  { return p.pick("クリニック", "Clinic") }
func (p P) ChipHost() string    { return p.pick("端末", "Host") }
func (p P) ChipFrom() string    { return p.pick("開始", "From") }
func (p P) ChipTo() string      { return p.pick("終了", "To") }
func (p P) ChipState() string   { return p.pick("状態", "State") }
func (p P) ChipRemove() string  { return p.pick("この条件を外す", "Remove this filter") }
func (p P) FilterApply() string { return p.pick("絞り込む", "Apply") }
func (p P) FilterWords() string {
	return p.pick("検知名・通信先・端末のIPアドレス・院名", "Detection, destination, IP address, clinic")
}
func (p P) ColDetection() string { return p.pick("検知", "Detection") }
func (p P) ColShape() string     { return p.pick("24時間", "24 h") }
func (p P) ColShapeLong(hours int) string {
	if hours == 24 {
		return p.ColShape()
	}
	return p.f("%d日", "%d d", hours/24)
}
func (p P) ColClinics() string { return p.pick("院数", "Clinics") }
func (p P) ColAlerts() string  { return p.pick("件数", "Alerts") }
func (p P) ColPassed() string  { return p.pick("通過", "Passed") }
func (p P) ColLast() string    { return p.pick("最終", "Last") }
func (p P) ColFirst() string   { return p.pick("初回", "First") }
func (p P) ColClinic() string  { return p.pick("クリニック", "Clinic") }
func (p P) ColTime() string    { return p.pick("時刻", "Time") }
func (p P) ColSource() string  { return p.pick("送信元", "Source") }
func (p P) ColDest() string    { return p.pick("宛先", "Destination") }
func (p P) ColOutcome() string { return p.pick("結果", "Outcome") }
func (p P) ColHosts() string   { return p.pick("端末", "Hosts") }
func (p P) SelectAll() string  { return p.pick("すべて選択", "Select all") }
func (p P) Select() string     { return p.pick("選択", "Select") }
func (p P) Expand() string     { return p.pick("展開", "Expand") }
func (p P) Details() string    { return p.pick("詳細", "Details") }
func (p P) Hosts(n int64) string {
	return p.f("端末%s台", "%s "+en1(n, "host", "hosts"), Number(n))
}
func (p P) HostUnknown() string { return p.pick("端末不明", "Host unknown") }
func (p P) SortBy(col string) string {
	return p.f("%sで並べ替え", "Sort by %s", col)
}

func (p P) NewGroups() string {
	return p.pick("新しい検知グループ — 表示する", "new groups — Show")
}

func (p P) NewAlerts() string {
	return p.pick("新しい検知 — 表示する", "new alerts — Show")
}

func (p P) NewSpoken() string {
	return p.pick("新しい検知があります", "New detections have arrived")
}

func (p P) Selected() string     { return p.pick("選択中", "selected") }
func (p P) SelectedUnit() string { return p.pick("検知", "alerts:") }

func (p P) PanelLead(alerts, passed, hosts int64, clinics int) string {
	if p.english {
		s := p.f("", "%s "+en1(int64(clinics), "clinic", "clinics")+", %s "+en1(hosts, "host", "hosts")+", %s "+
			en1(alerts, "alert", "alerts")+". ", Number(int64(clinics)), Number(hosts), Number(alerts))
		if passed == 0 {
			return s + "All blocked."
		}
		return s + Number(passed) + " passed."
	}
	s := p.f("%sクリニックの端末%s台で%s件。", "", Number(int64(clinics)), Number(hosts), Number(alerts))
	switch passed {
	case 0:
		return s + "すべて遮断しました。"
	case alerts:
		return s + "すべて通過しています。"
	}
	return s + "うち" + Number(passed) + "件は通過。"
}
func (p P) FactCertainty() string { return p.pick("確からしさ", "Certainty") }
func (p P) FactFirst() string     { return p.pick("初回", "First seen") }
func (p P) FactLast() string      { return p.pick("最終", "Last seen") }
func (p P) FactCoverage() string  { return p.pick("観測範囲", "Coverage") }
func (p P) FactIndicator() string { return p.pick("対象", "Indicator") }
func (p P) FactRule() string      { return p.pick("検知番号", "Rule") }

// CoverageLine tells what the zero and the count stand on: how many of the boxes reported for how much of the period.
func (p P) CoverageLine(boxes, reporting int, share float64, unprotectedMS int64) string {
	if boxes == 0 {
		return p.pick("装置がありません", "No appliance")
	}
	if reporting == 0 {
		return p.f("%d台とも、この期間の稼働報告なし", "No health report from %d in this period", boxes)
	}
	s := p.f("%[2]d台中%[1]d台が報告・稼働%[3]s", "%[1]d of %[2]d boxes reporting, up %[3]s", reporting, boxes, p.Percent(share))
	if unprotectedMS > 0 {
		s += p.f("・検査停止%s", ", uninspected %s", p.Millis(unprotectedMS))
	}
	return s
}
func (p P) WhenWhere() string { return p.pick("いつ・どこで", "When and where") }
func (p P) HoursLabel(maxN int64, hour string) string {
	return p.f("1時間ごとの件数。最大は%[2]sの%[1]s件", "Alerts per hour; most at %[2]s: %[1]s", Number(maxN), hour)
}

func (p P) DayLabel(maxN int64, day string) string {
	return p.f("1日ごとの件数。最大は%[2]sの%[1]s件", "Alerts per day; most on %[2]s: %[1]s", Number(maxN), day)
}
func (p P) Recent() string   { return p.pick("直近の検知", "Recent alerts") }
func (p P) NextStep() string { return p.pick("次の一手", "Suggested next step") }
func (p P) LinkToThis() string {
	return p.pick("この検知へのリンク", "Link to this detection")
}
func (p P) OpenClinic() string { return p.pick("クリニックを開く", "Open clinic") }
func (p P) EveryAlert() string { return p.pick("1件ずつ見る", "See every alert") }
func (p P) PanelEmpty() string {
	return p.pick("行を選ぶと、ここに詳細が出ます。", "Choose a row to see its details here.")
}

func (p P) PanelFailed() string {
	return p.pick("詳細を読み込めませんでした。", "The details could not be loaded.")
}

func (p P) RowGone() string {
	return p.pick("この検知は、いまの期間と条件には含まれません。", "This detection is not within the period and filter any more.")
}

func (p P) EmptyTriage() string {
	return p.pick("この24時間、検知はありません", "No detections in these 24 hours")
}

func (p P) EmptyTriagePeriod() string {
	return p.pick("この期間、検知はありません", "No detections in this period")
}

func (p P) EmptyFiltered(n int64) string {
	return p.f("条件により%s件が隠れています", "%s "+en1(n, "alert is", "alerts are")+" hidden by filters", Number(n))
}

func (p P) EmptySelfTest(t string) string {
	return p.f("最後に成功した自己診断: %s", "Last self-test passed: %s", t)
}

func (p P) EmptyNoSelfTest() string {
	return p.pick("自己診断の成功は、まだ記録されていません。", "No passed self-test is on record yet.")
}

func (p P) EmptyOffline(n int) string {
	return p.f("%d台が受信していません。届いていない検知があるかもしれません。", "%d appliances are offline; detections may still be waiting there.", n)
}

func (p P) KeyMove() string { return p.pick("移動", "move") }
func (p P) KeyNext() string { return p.pick("次の行へ", "Next row") }
func (p P) KeyPrev() string { return p.pick("前の行へ", "Previous row") }
func (p P) KeyExtendNext() string {
	return p.pick("下へ選択を広げる", "Extend the selection down")
}

func (p P) KeyExtendPrev() string {
	return p.pick("上へ選択を広げる", "Extend the selection up")
}
func (p P) KeyOpen() string       { return p.pick("展開", "open") }
func (p P) KeyExpand() string     { return p.pick("展開・折りたたみ", "Expand or collapse") }
func (p P) KeyCollapse() string   { return p.pick("折りたたむ", "Collapse") }
func (p P) KeySelect() string     { return p.pick("選択", "select") }
func (p P) KeySelectLong() string { return p.pick("選択する・外す", "Select or unselect") }
func (p P) KeyEnter() string      { return p.pick("この行のページを開く", "Open this row's page") }
func (p P) KeyNew() string        { return p.pick("新着", "show new") }
func (p P) KeyNewLong() string {
	return p.pick("新しい検知を表示する", "Show new detections")
}

func (p P) KeyClear() string {
	return p.pick("選択を外す・閉じる", "Clear the selection, close")
}
func (p P) KeyHelp() string   { return p.pick("この一覧を開く", "Open this list") }
func (p P) KeySearch() string { return p.pick("絞り込み欄へ", "Go to the filter field") }
func (p P) KeyFirst() string  { return p.pick("先頭へ", "First row") }
func (p P) KeyGo(where string) string {
	return p.f("%sへ移動", "Go to %s", where)
}
func (p P) KeysList() string { return p.pick("一覧の操作", "In lists") }
func (p P) KeysGo() string   { return p.pick("画面の移動", "Go to a screen") }
func (p P) KeysNote() string {
	return p.pick("1文字のキー操作は、利用者メニューで切れます。切ったときは Alt を押しながら使えます。",
		"Single-letter keys can be turned off in the user menu; then use them with Alt.")
}

// KeyOpenPage is the short word for opening a row's page.
func (p P) KeyOpenPage() string { return p.pick("開く", "open") }
