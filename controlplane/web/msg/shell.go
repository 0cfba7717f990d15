//nolint:revive // a message's comment is its text
package msg

import "time"

// Words of the shell around every page, and of signing in.

func (p P) Product() string { return p.pick("門守", "Kadomori") }

func (p P) ProductLong() string { return p.pick("門守 フリート管制", "Kadomori fleet console") }
func (p P) Skip() string        { return p.pick("本文へ移動", "Skip to content") }
func (p P) NavLabel() string    { return p.pick("主要", "Main") }
func (p P) Detect() string      { return p.pick("検知", "Detect") }
func (p P) Fleet() string       { return p.pick("フリート", "Fleet") }
func (p P) Assure() string      { return p.pick("報告と証跡", "Assure") }
func (p P) Admin() string       { return p.pick("管理", "Admin") }
func (p P) Overview() string    { return p.pick("概況", "Overview") }
func (p P) Triage() string      { return p.pick("トリアージ", "Triage") }
func (p P) Clinics() string     { return p.pick("クリニック", "Clinics") }
func (p P) Appliances() string  { return p.pick("装置", "Appliances") }
func (p P) Reports() string     { return p.pick("月次報告", "Reports") }
func (p P) Menu() string        { return p.pick("メニュー", "Menu") }

func (p P) ScopeLabel() string { return p.pick("対象クリニック", "Clinics in scope") }
func (p P) ScopeAll(n int) string {
	return p.f("全クリニック %s", "All clinics %s", Number(int64(n)))
}

func (p P) ScopeSome(n int) string {
	return p.f("%d院を表示中", "%d clinics", n)
}

func (p P) ScopeFind() string {
	return p.pick("院名・よみ・番号で絞り込む", "Name, reading or number")
}

func (p P) ScopeMore(n int) string {
	return p.f("ほか%s院はクリニック一覧から", "%s more in the list of clinics", Number(int64(n)))
}

func (p P) Live() string        { return p.pick("ライブ", "Live") }
func (p P) LiveConnect() string { return p.pick("接続中", "Connecting") }
func (p P) LiveLost() string    { return p.pick("更新停止", "Not updating") }
func (p P) LiveLag(d time.Duration) string {
	return p.f("遅延 %s", "%s behind", p.Seconds(d))
}
func (p P) LiveNothing() string { return p.pick("受信なし", "nothing received") }
func (p P) LiveSilent(t, now time.Time) string {
	return p.f("最終受信 %s", "last received %s", p.Time(t, now))
}
func (p P) LiveAsOf() string { return p.pick("時点", "as of") }

func (p P) Theme() string      { return p.pick("配色", "Theme") }
func (p P) ThemeAuto() string  { return p.pick("端末に合わせる", "As the device") }
func (p P) ThemeLight() string { return p.pick("明るい", "Light") }
func (p P) ThemeDark() string  { return p.pick("暗い", "Dark") }
func (p P) Language() string   { return p.pick("表示言語", "Language") }
func (p P) Logout() string     { return p.pick("ログアウト", "Sign out") }
func (p P) UserMenu() string   { return p.pick("利用者メニュー", "User menu") }
func (p P) Density() string    { return p.pick("行の高さ", "Row height") }
func (p P) DensityDense() string {
	return p.pick("標準", "Dense")
}
func (p P) DensityComfort() string { return p.pick("ゆったり", "Comfortable") }
func (p P) SingleKeys() string     { return p.pick("1文字のキー操作", "Single-letter keys") }
func (p P) On() string             { return p.pick("入", "On") }
func (p P) Off() string            { return p.pick("切", "Off") }

// Role names an operator's role.
func (p P) Role(role string) string {
	switch role {
	case "analyst":
		return p.pick("アナリスト", "Analyst")
	case "lead":
		return p.pick("リード", "Lead")
	case "operator":
		return p.pick("運用担当", "Operator")
	case "approver":
		return p.pick("承認者", "Approver")
	case "auditor":
		return p.pick("監査者", "Auditor")
	case "admin":
		return p.pick("管理者", "Administrator")
	}
	return role
}

func (p P) LoginTitle() string { return p.pick("ログイン", "Sign in") }
func (p P) LoginLead() string {
	return p.pick("クリニックの門を、離れて守る。", "Guarding the clinics' gates.")
}
func (p P) LoginName() string     { return p.pick("利用者名", "User name") }
func (p P) LoginPassword() string { return p.pick("パスワード", "Password") }
func (p P) LoginDo() string       { return p.pick("ログイン", "Sign in") }
func (p P) LoginWrong() string {
	return p.pick("利用者名またはパスワードが違います。もう一度ご入力ください。", "User name or password is wrong. Please try again.")
}

func (p P) LoginThrottled() string {
	return p.pick("入力の誤りが続いています。しばらくおいてからお試しください。", "Too many attempts. Please wait a little and try again.")
}

func (p P) LoginInsecure() string {
	return p.pick("この接続は暗号化されていないため、ログインできません。https で開き直してください。",
		"This connection is not encrypted, so signing in is not possible. Please open the page with https.")
}

func (p P) LoginEnded() string {
	return p.pick("ログインの有効期間が終わりました。もう一度ログインしてください。", "Your session has ended. Please sign in again.")
}

func (p P) Error() string {
	return p.pick("表示できませんでした", "This page could not be shown")
}
func (p P) ErrorRef() string { return p.pick("照会番号", "Reference") }
func (p P) ErrorAgain() string {
	return p.pick("もう一度読み込む", "Try again")
}

func (p P) ErrorInternal() string {
	return p.pick("データベースから読み出せませんでした。しばらくしてから、もう一度お試しください。続くときは照会番号をお知らせください。",
		"The database could not be read. Please try again in a while; if it goes on, tell us the reference.")
}

func (p P) NotFoundTitle() string { return p.pick("見つかりません", "Not found") }
func (p P) NotFound() string {
	return p.pick("このアドレスに表示するものはありません。", "There is nothing at this address.")
}

func (p P) BadFilter() string {
	return p.pick("条件を読み取れませんでした", "The filter could not be read")
}

// BadFilterDetail says which parameter is wrong; name and reason come from the filter's parser.
func (p P) BadFilterDetail(name, value string) string {
	return p.f("条件「%s」の値「%s」は使えません。", "The value %[2]q can't be used for %[1]q.", name, value)
}
func (p P) ClearFilter() string { return p.pick("条件をすべて外す", "Clear all filters") }
func (p P) FormExpired() string {
	return p.pick("画面を開いてから状態が変わりました。読み込み直してから操作してください。", "The page is out of date. Please reload it and try again.")
}

func (p P) Search() string   { return p.pick("検索", "Search") }
func (p P) Keys() string     { return p.pick("キー一覧", "Keys") }
func (p P) KeysFoot() string { return p.pick("一覧", "all keys") }
func (p P) Close() string    { return p.pick("閉じる", "Close") }
func (p P) Loading() string  { return p.pick("読み込み中", "Loading") }
func (p P) LoadFailed() string {
	return p.pick("読み込めませんでした。", "Could not be loaded.")
}
func (p P) Retry() string    { return p.pick("再試行", "Retry") }
func (p P) Clear() string    { return p.pick("外す", "Clear") }
func (p P) Export() string   { return p.pick("書き出し", "Export") }
func (p P) None() string     { return p.pick("なし", "None") }
func (p P) Unknown() string  { return p.pick("不明", "Unknown") }
func (p P) NoRecord() string { return p.pick("記録なし", "No record") }
func (p P) All() string      { return p.pick("すべて", "All") }
func (p P) Shown(n, of int64) string {
	return p.f("%[2]s件中%[1]s件", "%[1]s of %[2]s", Number(n), Number(of))
}

// BadgeGroups and BadgeBoxes say aloud what a number in the navigation counts.
func (p P) BadgeGroups(n string) string {
	return p.f("検知グループ %s", "%s groups", n)
}

func (p P) BadgeBoxes(n string) string {
	return p.f("確認が必要な装置 %s台", "%s need attention", n)
}
