//nolint:revive // a message's comment is its text
package msg

import "time"

// Words of verdicts, suppressions, cases and the audit log.

// VerdictName names a verdict.
func (p P) VerdictName(v string) string {
	switch v {
	case "threat":
		return p.pick("脅威", "Threat")
	case "false_alarm":
		return p.pick("誤検知", "False alarm")
	case "expected":
		return p.pick("想定内", "Expected")
	case "quiet":
		return p.pick("通知不要", "Do not notify")
	}
	return v
}

// VerdictHint says what a verdict does.
func (p P) VerdictHint(v string) string {
	switch v {
	case "threat":
		return p.pick("ケースを開き、対応を始める", "Opens a case")
	case "false_alarm":
		return p.pick("検知が誤り。ルール改善へ送る", "The detection is wrong; goes to rule tuning")
	case "expected":
		return p.pick("検知は正しいが、理由がある通信", "Correct, and there is a reason for it")
	case "quiet":
		return p.pick("遮断は続け、一覧には出さない", "Blocking goes on; not listed any more")
	}
	return ""
}
func (p P) VerdictTitle() string { return p.pick("判定する", "Give a verdict") }
func (p P) VerdictLead(name string, alerts int64, clinics int) string {
	return p.f("%s — %s件・%sクリニック", "%s — %s alerts, %s clinics", name, Number(alerts), Number(int64(clinics)))
}

func (p P) VerdictSeveral(n int) string { return p.f("%d個の検知グループ", "%d groups", n) }
func (p P) Reason() string              { return p.pick("理由", "Reason") }
func (p P) ReasonHint() string {
	return p.pick("必須・記録に残ります", "required, goes on record")
}
func (p P) ScopeTitle() string { return p.pick("適用範囲", "Scope") }
func (p P) ScopeOnlyDevice(name string) string {
	return p.f("端末「%s」のみ", "Only device %q", name)
}

func (p P) ScopeOnlyDst(ip string) string { return p.f("宛先 %s のみ", "Only destination %s", ip) }

func (p P) ScopeOnlyPort(n int) string {
	return p.f("宛先ポート %d のみ", "Only destination port %d", n)
}

func (p P) ScopeChosen(n int) string {
	return p.f("選択した%dクリニック", "The %d clinics chosen", n)
}
func (p P) ScopeFleetAll(n int) string { return p.f("全%dクリニック", "All %d clinics", n) }
func (p P) NeedsApproval() string      { return p.pick("要承認", "needs approval") }
func (p P) Expiry() string             { return p.pick("期限", "Expires") }
func (p P) ExpiryHint() string {
	return p.pick("無期限はありません（最長180日）", "never \"for ever\" (180 days at most)")
}
func (p P) Days(n int) string        { return p.f("%d日", "%d days", n) }
func (p P) Until(t time.Time) string { return p.f("%s まで", "until %s", p.Date(t)) }
func (p P) ReplayTitle() string {
	return p.pick("過去30日に当てはめた結果", "Tried on the last 30 days")
}
func (p P) ReplayHides(n int64) string { return p.f("隠れる %s件", "hidden %s", Number(n)) }
func (p P) ReplayStays(n int64) string { return p.f("残る %s件", "stay %s", Number(n)) }
func (p P) ReplayLabel(h, s int64) string {
	return p.f("過去30日: 抑制されるのは%s件、残るのは%s件", "Last 30 days: %s would be hidden, %s would stay", Number(h), Number(s))
}

func (p P) ReplayThreats(n int64) string {
	return p.f("このうち%s件は過去に「脅威」と判定しています。条件を加えて範囲を狭めてください。", "%s of these were judged a threat. Narrow the scope with a condition.", Number(n))
}
func (p P) EffectTitle() string { return p.pick("適用すると", "What it does") }
func (p P) EffectClose(n int64, verdict string) string {
	return p.f("未判定の%s件を「%s」で閉じる", "Closes %s alerts as %q", Number(n), verdict)
}

func (p P) EffectCase() string {
	return p.pick("ケースを1件開き、あなたを担当にする", "Opens one case, owned by you")
}

func (p P) EffectSuppress(clinics int) string {
	return p.f("%dクリニックに抑制を作成（遮断は続けます）", "Creates a suppression at %d clinics (blocking goes on)", clinics)
}

func (p P) EffectExpire() string {
	return p.pick("期限が来ると、自動で一覧に戻ります", "When it expires, they are listed again by themselves")
}

func (p P) EffectTuning() string {
	return p.pick("同じ検知がまた起きたときは、未判定に戻ります", "If it fires again, it is listed again")
}

func (p P) EffectPending() string {
	return p.pick("承認者が承認するまで、何も隠れません", "Nothing is hidden until a second person approves")
}

func (p P) EffectPassed(n int64) string {
	return p.f("通過した%s件は、判定しても遮断されません", "The %s that passed are not blocked by a verdict", Number(n))
}

func (p P) RecordedAs(name string) string {
	return p.f("記録者 %s・監査ログに残ります", "Recorded as %s, in the audit log", name)
}
func (p P) Cancel() string { return p.pick("やめる", "Cancel") }
func (p P) Apply() string  { return p.pick("判定して適用", "Apply") }
func (p P) DoVerdict() string {
	return p.pick("判定", "Verdict")
}

func (p P) Judged(n int64, verdict string) string {
	return p.f("%s件を「%s」と判定しました", "%s alerts judged %q", Number(n), verdict)
}

func (p P) JudgedPending() string {
	return p.pick("承認待ちです。承認されるまで何も隠れません。", "Waiting for approval. Nothing is hidden until then.")
}
func (p P) UndoKey() string  { return p.pick("取り消す", "Undo") }
func (p P) Undone() string   { return p.pick("判定を取り消しました", "Verdict undone") }
func (p P) Lifted() string   { return p.pick("抑制を解除しました", "Suppression lifted") }
func (p P) Approved() string { return p.pick("承認しました", "Approved") }
func (p P) NothingLeft() string {
	return p.pick("判定する検知が残っていません。ほかの人が先に判定した可能性があります。", "Nothing is left to judge; somebody else may have been faster.")
}

func (p P) VerdictBad() string {
	return p.pick("入力に足りないところがあります。理由と期限をご確認ください。", "Something is missing. Check reason and expiry.")
}

func (p P) StateChanged() string {
	return p.pick("ほかの人が先に変更しました。読み込み直してご確認ください。", "Somebody else changed it first. Please reload.")
}

func (p P) NeedsOther() string {
	return p.pick("承認は、作成した人とは別の人が行います。", "Approval needs another person than the author.")
}

func (p P) NeedsRole(roles string) string {
	return p.f("%sの権限が必要です", "Needs the role %s", roles)
}
func (p P) KeyVerdict() string { return p.pick("判定する", "Give a verdict") }
func (p P) KeyUndo() string {
	return p.pick("直前の判定を取り消す（30秒以内）", "Undo the last verdict (30 s)")
}
func (p P) FootVerdict() string { return p.pick("判定", "verdict") }
func (p P) FootUndo() string    { return p.pick("取り消し", "undo") }

func (p P) ViewUntriaged() string { return p.pick("未判定", "Untriaged") }
func (p P) ViewDone() string      { return p.pick("判定済", "Judged") }
func (p P) ViewEverything() string {
	return p.pick("判定済を含む", "Incl. judged")
}
func (p P) ColPrecedent() string { return p.pick("過去の判定", "Precedent") }
func (p P) FirstTime() string    { return p.pick("初めて", "First time") }
func (p P) EmptyUntriaged() string {
	return p.pick("未判定はありません", "Nothing left to triage")
}

func (p P) Suppressions() string { return p.pick("抑制", "Suppressions") }
func (p P) SuppressionsSum(active, soon int) string {
	if soon > 0 {
		return p.f("%d件が有効、うち%d件は7日以内に期限", "%d active, %d expire within 7 days", active, soon)
	}
	return p.f("%d件が有効", "%d active", active)
}

func (p P) EmptySuppressions() string { return p.pick("抑制はありません", "No suppressions") }

func (p P) EmptySuppressionsWhy() string {
	return p.pick("トリアージで「想定内」または「通知不要」と判定すると、ここに並びます。遮断は抑制されません。", "A verdict \"expected\" or \"do not notify\" makes one. It never opens traffic.")
}

// SuppressionState names the state of a suppression.
func (p P) SuppressionState(s string) string {
	switch s {
	case "pending":
		return p.pick("承認待ち", "Waiting for approval")
	case "active":
		return p.pick("有効", "Active")
	case "expiring":
		return p.pick("まもなく期限", "Expiring")
	case "expired":
		return p.pick("期限切れ", "Expired")
	case "lifted":
		return p.pick("解除済み", "Lifted")
	case "undone":
		return p.pick("取り消し済み", "Undone")
	case "band":
		return p.pick("想定を超過", "Out of band")
	}
	return s
}
func (p P) ColScope() string   { return p.pick("対象", "Scope") }
func (p P) ColVerdict() string { return p.pick("判定", "Verdict") }
func (p P) ColHidden7() string { return p.pick("7日に隠れた数", "Hidden 7 d") }
func (p P) ColReplay() string  { return p.pick("30日の見込み", "30 d replay") }
func (p P) ColAuthor() string  { return p.pick("作成", "Author") }
func (p P) ColExpires() string { return p.pick("期限", "Expires") }
func (p P) ColReason() string  { return p.pick("理由", "Reason") }
func (p P) LiftDo() string     { return p.pick("解除する", "Lift") }
func (p P) UndoDo() string     { return p.pick("取り消す", "Undo") }
func (p P) ApproveDo() string  { return p.pick("承認する", "Approve") }
func (p P) EndReason() string  { return p.pick("解除の理由", "Why it ends") }
func (p P) InClinics(n int, fleet bool) string {
	if fleet {
		return p.pick("全クリニック", "all clinics")
	}
	return p.f("%dクリニック", "%d "+en1(int64(n), "clinic", "clinics"), n)
}

func (p P) ByPerson(author, approver string) string {
	if approver == "" {
		return author
	}
	return p.f("%s・承認 %s", "%s, approved by %s", author, approver)
}

func (p P) NotUnblock() string {
	return p.pick("抑制は一覧に出さないだけで、遮断は続きます。", "A suppression only hides from the list; blocking goes on.")
}

func (p P) Cases() string { return p.pick("ケース", "Cases") }
func (p P) CasesSum(open int) string {
	return p.f("%d件が進行中", "%d open", open)
}
func (p P) EmptyCases() string { return p.pick("ケースはありません", "No cases") }
func (p P) EmptyCasesWhy() string {
	return p.pick("トリアージで「脅威」と判定すると、ここに並びます。", "A verdict \"threat\" opens one.")
}
func (p P) CaseNo(n int64) string { return p.f("ケース %d", "Case %d", n) }

// CaseStatus names a case's status.
func (p P) CaseStatus(s string) string {
	switch s {
	case "new":
		return p.pick("新規", "New")
	case "investigating":
		return p.pick("調査中", "Investigating")
	case "responding":
		return p.pick("対応中", "Responding")
	case "waiting":
		return p.pick("確認待ち", "Waiting")
	case "closed":
		return p.pick("終結", "Closed")
	}
	return s
}

// CaseResolution names how a case ended.
func (p P) CaseResolution(s string) string {
	switch s {
	case "threat_handled":
		return p.pick("脅威・対処済", "Threat, handled")
	case "threat_attempted":
		return p.pick("脅威・未遂", "Threat, attempted")
	case "false_alarm":
		return p.pick("誤検知", "False alarm")
	case "expected":
		return p.pick("想定内", "Expected")
	}
	return s
}
func (p P) ColNumber() string    { return p.pick("番号", "No.") }
func (p P) ColTitle() string     { return p.pick("件名", "Title") }
func (p P) ColStatus() string    { return p.pick("状態", "Status") }
func (p P) ColOwner() string     { return p.pick("担当", "Owner") }
func (p P) ColOpened() string    { return p.pick("開始", "Opened") }
func (p P) ColActivity() string  { return p.pick("最終更新", "Last activity") }
func (p P) CaseTimeline() string { return p.pick("経緯", "Timeline") }
func (p P) CaseScope() string    { return p.pick("対象のクリニック", "Clinics") }
func (p P) CaseNote() string     { return p.pick("メモを追加", "Add a note") }
func (p P) CaseSave() string     { return p.pick("記録する", "Save") }
func (p P) CaseTake() string     { return p.pick("自分が担当する", "Take over") }
func (p P) CaseMove() string     { return p.pick("状態を進める", "Move on") }
func (p P) CaseClose() string    { return p.pick("終結の区分", "Resolution") }
func (p P) CaseOpenedBy() string { return p.pick("ケースを開きました", "opened the case") }
func (p P) CaseStatusTo(s string) string {
	return p.f("状態を「%s」にしました", "set the status to %s", s)
}

func (p P) CaseOwnerTo(s string) string {
	return p.f("担当を %s にしました", "made %s the owner", s)
}
func (p P) CaseSaved() string          { return p.pick("記録しました", "Saved") }
func (p P) BadgeCases(n string) string { return p.f("進行中のケース %s件", "%s open cases", n) }

func (p P) BadgeSuppressions(n string) string {
	return p.f("7日以内に期限の抑制 %s件", "%s suppressions expire within 7 days", n)
}

func (p P) Audit() string { return p.pick("監査ログ", "Audit log") }
func (p P) AuditSum(rows int64) string {
	return p.f("連鎖を確認済み・%s件", "chain verified, %s records", Number(rows))
}

func (p P) AuditBroken() string {
	return p.pick("連鎖が途切れています。記録が書き換えられた可能性があります。", "The chain is broken: records may have been altered.")
}
func (p P) ColActor() string   { return p.pick("実行者", "Actor") }
func (p P) ColAction() string  { return p.pick("操作", "Action") }
func (p P) ColTarget() string  { return p.pick("対象", "Target") }
func (p P) ColDetail() string  { return p.pick("内容", "Detail") }
func (p P) ColChain() string   { return p.pick("連鎖", "Chain") }
func (p P) AuditNoise() string { return p.pick("装置・自動処理も表示", "Show machines") }
func (p P) AuditPeople() string {
	return p.pick("人の操作", "People")
}
func (p P) AuditOlder() string { return p.pick("さらに前", "Older") }
func (p P) EmptyAudit() string {
	return p.pick("条件に合う記録はありません", "No records match")
}

func (p P) FindActor() string {
	return p.pick("実行者・操作・対象で絞り込む", "Actor, action or target")
}
func (p P) NotPermitted() string { return p.pick("権限がありません", "Not permitted") }
func (p P) NotPermittedHow(need string) string {
	return p.f("この操作には%sの権限が必要です。チームの管理者にご相談ください。", "This needs the role %s. Ask your team's administrator.", need)
}
