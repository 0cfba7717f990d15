//nolint:revive // a message's comment is its text
package msg

// Words of the team's page.

func (p P) Team() string         { return p.pick("チーム", "Team") }
func (p P) TeamSum(n int) string { return p.f("%d人", "%d people", n) }
func (p P) TeamNew() string      { return p.pick("利用者を追加", "Add a person") }
func (p P) TeamName() string {
	return p.pick("利用者名（英小文字・数字）", "User name (lower-case letters, digits)")
}
func (p P) TeamDisplay() string  { return p.pick("表示名", "Display name") }
func (p P) TeamRole() string     { return p.pick("役割", "Role") }
func (p P) TeamAdd() string      { return p.pick("追加する", "Add") }
func (p P) TeamReset() string    { return p.pick("パスワードを再発行", "New password") }
func (p P) TeamOff() string      { return p.pick("停止する", "Switch off") }
func (p P) TeamOn() string       { return p.pick("再開する", "Switch on") }
func (p P) TeamSeen() string     { return p.pick("最終ログイン", "Last sign-in") }
func (p P) TeamActive() string   { return p.pick("有効", "Active") }
func (p P) TeamDisabled() string { return p.pick("停止中", "Off") }
func (p P) TeamBad() string {
	return p.pick("利用者名（英小文字で始まる2〜32文字）と表示名をご確認ください。同じ名前は使えません。", "Check user name (2 to 32 characters, starting with a lower-case letter) and display name; names can't repeat.")
}

func (p P) TeamCant() string {
	return p.pick("ご自身と最後の管理者は停止できません。", "Neither you nor the last administrator can be switched off.")
}

func (p P) TeamOnce(name string) string {
	return p.f("「%s」のパスワードです。この画面に一度だけ表示されます。", "Password of %s, shown once, here.", name)
}

func (p P) TeamDuties() string {
	return p.pick("判定はアナリストとリードが行います。管理者は判定できません（職務の分離）。", "Verdicts are for analysts and leads; an administrator gives none (separation of duties).")
}
