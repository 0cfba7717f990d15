//nolint:revive // a message's comment is its text
package msg

import "time"

// Words of the clinic's own pages (です・ます, short, one idea each), and of the MSP's forms about them.

func (p P) CaHelp() string  { return p.pick("困ったときは", "Need help?") }
func (p P) CaTitle() string { return p.pick("今月の状況", "This month") }
func (p P) CaAsk() string   { return p.pick("今月のお願い", "What we ask of you") }
func (p P) CaNoAsk() string {
	return p.pick("いま、お願いしていることはありません。", "There is nothing we ask of you now.")
}

func (p P) CaPeriod(from, to time.Time) string {
	if p.english {
		return from.In(JST).Format("2 January 2006") + " to " + to.In(JST).Format("2 January")
	}
	return from.In(JST).Format("2006年1月2日") + "〜" + to.In(JST).Format("1月2日")
}

// CaMark is the sentence of the mark; asks is how many requests are open.
func (p P) CaMark(v string, asks int) string {
	switch v {
	case "act":
		return p.pick("要対応：お電話でご連絡しています", "Action needed: we are calling you")
	case "warn":
		if asks > 0 {
			return p.f("要確認：お願いが%d件あります", "To check: %d requests", asks)
		}
		return p.pick("要確認：ご確認いただきたいことがあります", "To check: please have a look")
	case "hold":
		return p.pick("判定保留：装置の記録がそろっていません", "On hold: the records are not complete")
	}
	return p.pick("良好：対応が必要な事象は観測されていません", "Good: nothing observed that needs action")
}

// CaSentence says what the mark stands on.
func (p P) CaSentence(found, blocked int64, share float64) string {
	up := p.pick("装置の稼働は記録されていません。", "No uptime on record.")
	if share >= 0 {
		up = p.f("装置は期間中%s動作しました。", "The appliance was up %s of the time.", p.Percent(share))
	}
	if found == 0 {
		return up + p.pick("この期間、不正侵入の試みなどは観測されませんでした。", " No attempts were observed.")
	}
	if found == blocked {
		return up + p.f("不正な通信を%s件検知し、すべて遮断しました。", " %s detections, all blocked.", Number(found))
	}
	return up + p.f("検知%s件（うち遮断%s件、通過%s件）。", " %s detections (%s blocked, %s passed).", Number(found), Number(blocked), Number(found-blocked))
}
func (p P) CaWho() string          { return p.pick("どなたが", "Who") }
func (p P) CaDue() string          { return p.pick("いつまでに", "By when") }
func (p P) CaTakes() string        { return p.pick("所要", "Takes") }
func (p P) CaMinutes(n int) string { return p.f("約%d分", "about %d min", n) }
func (p P) CaDueDate(t time.Time) string {
	t = t.In(JST)
	if p.english {
		return t.Format("2 January")
	}
	return t.Format("1月2日") + "（" + []string{"日", "月", "火", "水", "木", "金", "土"}[t.Weekday()] + "）"
}

func (p P) CaVendor() string {
	return p.pick("業者さまへお渡しいただける文面を見る", "Text for your vendor")
}
func (p P) CaDone() string { return p.pick("確認しました", "Done") }
func (p P) CaCall() string {
	return p.pick("わからない・電話がほしい", "Not sure, please call")
}
func (p P) CaInfected() string       { return p.pick("感染端末", "Infected devices") }
func (p P) CaAttack() string         { return p.pick("攻撃検知", "Attacks") }
func (p P) CaUp() string             { return p.pick("装置の稼働", "Appliance") }
func (p P) CaReport() string         { return p.pick("月次報告", "Report") }
func (p P) CaGood() string           { return p.pick("● 良好", "● Good") }
func (p P) CaNoAction() string       { return p.pick("● 対応不要", "● No action") }
func (p P) CaCheck() string          { return p.pick("▲ 要確認", "▲ To check") }
func (p P) CaDevices(n int64) string { return p.f("%s台", "%s", Number(n)) }
func (p P) CaCount(n int64) string   { return p.f("%s件", "%s", Number(n)) }
func (p P) CaSeen() string {
	return p.pick("装置を通る通信の範囲で観測", "as far as traffic passes the appliance")
}
func (p P) CaAllBlocked() string { return p.pick("すべて遮断しました", "all blocked") }
func (p P) CaSplit(b, pass int64) string {
	return p.f("遮断%s件・通過%s件", "%s blocked, %s passed", Number(b), Number(pass))
}

func (p P) CaOff(ms int64) string {
	if ms == 0 {
		return p.pick("検査停止時間はありません", "no uninspected time")
	}
	return p.f("検査停止時間 %s", "uninspected %s", p.Millis(ms))
}
func (p P) CaNoReport() string  { return p.pick("まだありません", "not yet") }
func (p P) CaSignTitle() string { return p.pick("院長先生のご確認", "Director's confirmation") }

func (p P) CaSignLead() string {
	return p.pick("報告書をお読みになり、確認日を記録してください。記録は立入検査の際の資料としてお使いいただけます。", "Please read the report and record the date. The record may serve at an inspection.")
}

func (p P) CaSigned(name, at string) string {
	return p.f("%s 様が %s に確認しました。", "Confirmed by %s on %s.", name, at)
}
func (p P) CaSignName() string { return p.pick("お名前", "Your name") }
func (p P) CaSignPass() string { return p.pick("合言葉（もう一度）", "Pass, once more") }
func (p P) CaSignDo() string   { return p.pick("確認して記録する", "Confirm and record") }
func (p P) CaSignOnly() string {
	return p.pick("記録できるのは院長先生の合言葉だけです。", "Only the director's pass can record this.")
}

func (p P) CaSignBad() string {
	return p.pick("お名前または合言葉をご確認ください。", "Please check name and pass.")
}

func (p P) CaOpen(month string) string {
	return p.f("%sの報告書を開く（PDF）", "Open the report of %s (PDF)", month)
}
func (p P) CaOld() string { return p.pick("これまでの報告", "Earlier reports") }
func (p P) CaFine() string {
	return p.pick("本画面は、装置が観測した通信に基づくもので、すべての脅威の検知や法令への適合を保証するものではありません。", "This page rests on traffic that the appliance observed; it does not guarantee that every threat is found.")
}
func (p P) CaLogin() string { return p.pick("クリニックさま用ページ", "For clinics") }
func (p P) CaCode() string  { return p.pick("クリニック番号", "Clinic number") }
func (p P) CaPass() string  { return p.pick("合言葉", "Pass") }
func (p P) CaPassHint() string {
	return p.pick("お渡しした用紙にある、3文字ずつの合言葉です。", "The groups of three characters on your sheet.")
}
func (p P) CaEnter() string { return p.pick("開く", "Open") }
func (p P) CaWrong() string {
	return p.pick("番号または合言葉が違うようです。用紙をご確認ください。ご不明なときはお電話ください。", "Number or pass seem to be wrong. Please check your sheet or call us.")
}

func (p P) CaThanks() string {
	return p.pick("ありがとうございます。承りました。", "Thank you, noted.")
}

func (p P) CaWillCall() string {
	return p.pick("承りました。担当者からお電話します。", "Noted. We will call you.")
}

func (p P) CaGoneCard() string {
	return p.pick("このお願いは、すでに終わっています。", "This request is over already.")
}
func (p P) CaOut() string { return p.pick("閉じる", "Sign out") }
func (p P) CaNotFound() string {
	return p.pick("このページはありません。", "There is no such page.")
}

func (p P) CaTrouble() string {
	return p.pick("いま表示できません。しばらくしてから、もう一度お開きください。", "This can't be shown now. Please try again later.")
}

// For the MSP, on a clinic's page.
func (p P) TabAsk() string { return p.pick("お願い", "Requests") }

func (p P) AskTitle() string {
	return p.pick("クリニックへのお願い（同時に3件まで）", "Requests to the clinic (3 at a time)")
}

func (p P) AskNone() string {
	return p.pick("お願いはまだありません。", "No requests yet.")
}
func (p P) AskNew() string { return p.pick("新しいお願い", "New request") }
func (p P) AskHead() string {
	return p.pick("件名（です・ます、1文で）", "Title, one sentence")
}
func (p P) AskBody() string   { return p.pick("何があったか", "What happened") }
func (p P) AskVendor() string { return p.pick("業者さまへの文面", "Text for the vendor") }
func (p P) AskSend() string   { return p.pick("お願いを出す", "Send") }
func (p P) AskBad() string {
	return p.pick("件名が空か、すでに3件出ています。", "No title, or three are open already.")
}
func (p P) AskSent() string { return p.pick("お願いを出しました", "Request sent") }

// AskState names the state of a request.
func (p P) AskState(a string) string {
	switch a {
	case "done":
		return p.pick("確認済み", "Done")
	case "call":
		return p.pick("電話がほしい", "Wants a call")
	case "withdrawn":
		return p.pick("取り下げ", "Withdrawn")
	}
	return p.pick("返事待ち", "Waiting")
}

func (p P) AccessTitle() string {
	return p.pick("クリニックさま用ページの合言葉", "Pass for the clinic's own page")
}

func (p P) AccessNew(role string) string {
	if role == "director" {
		return p.pick("院長用を発行", "Issue for the director")
	}
	return p.pick("職員用を発行", "Issue for staff")
}

func (p P) AccessOnce() string {
	return p.pick("合言葉はこの画面に一度だけ表示されます。用紙に書いてお渡しください。", "The pass is shown once, here. Hand it over on paper.")
}
func (p P) AccessWhere() string { return p.pick("開くページ", "Page to open") }
