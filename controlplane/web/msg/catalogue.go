package msg

// Known is what the house knows about a detector of the catalogue: its name and what to do next.
type Known struct {
	Name string
	Next []string
}

// Detector names a detector of the appliance; ok is false for one this console doesn't know yet, whose own title is shown then.
func (p P) Detector(key string) (Known, bool) {
	switch key {
	case "D12-address":
		return Known{p.pick("指令サーバーとみられる宛先への通信", "Connection to a listed command server"), []string{
			p.pick("端末の持ち主と、いま使っているかを確かめる", "Find out whose device it is and whether it is in use"),
			p.pick("同じ宛先へ通信した端末が他院にないか、検知名で見比べる", "Compare with other clinics that contacted the same address"),
			p.pick("LANケーブルを抜くようクリニックへ依頼する（電源は切らない）", "Ask the clinic to unplug the LAN cable (power stays on)"),
		}}, true
	case "D12-domain":
		return Known{p.pick("不審なドメインの名前解決", "Lookup of a listed domain"), []string{
			p.pick("名前解決のあとに通信があったか、端末で絞り込んで確かめる", "Filter by the host: did a connection follow the lookup?"),
			p.pick("同じ端末に別の兆候があるか確かめる", "Check the same host for a second signal"),
			p.pick("院内のDNSサーバーが送信元なら、問い合わせ元の端末を調べる", "If the source is the clinic's DNS server, find the device behind it"),
		}}, true
	case "D19":
		return Known{p.pick("短時間に多数の宛先・ポートへの探索", "Scan of many hosts or ports in a short time"), []string{
			p.pick("資産管理や保守業者の調査でないか、作業予定を確かめる", "Check that it is no inventory tool or vendor's work"),
			p.pick("内側からの探索なら、送信元の端末を調べる", "If it came from inside, look at the source device"),
			p.pick("外側からで遮断済みなら、クリニックの対応は不要", "From outside and blocked: nothing to do for the clinic"),
		}}, true
	case "infected-host":
		return Known{p.pick("感染の疑いがある端末", "Device suspected of infection"), []string{
			p.pick("兆候の一覧と最初の時刻を確かめる", "Look at the signals and when the first one came"),
			p.pick("クリニックへ電話する: LANケーブルを抜き、電源は切らない", "Call the clinic: unplug the LAN cable, leave the power on"),
			p.pick("電子カルテ・資格確認・医療機器なら、止める前に診療への影響を相談する", "Records, eligibility check or medical device: discuss the effect on care first"),
		}}, true
	}
	return Known{}, false
}

// Next suggests steps by category for a signature that has no entry of its own.
func (p P) Next(category string) []string {
	switch category {
	case "bot", "malware":
		return []string{
			p.pick("端末で絞り込み、独立した兆候がもう1つあるか確かめる", "Filter by the host: is there a second, independent signal?"),
			p.pick("通過した通信の宛先を、ほかのクリニックでも探す", "Look for the same destination at other clinics"),
			p.pick("疑いが残るなら、クリニックへ電話して端末を切り離してもらう", "If doubt remains, call the clinic and have the device unplugged"),
		}
	case "intrusion":
		return []string{
			p.pick("通過した件があれば、宛先の機器と公開ポートを確かめる", "If any passed, check the target device and the open port"),
			p.pick("宛先の機器から外への通信が、その後に増えていないか確かめる", "See whether the target began to talk to the outside afterwards"),
			p.pick("すべて遮断なら、クリニックの対応は不要", "All blocked: nothing to do for the clinic"),
		}
	case "bad_site":
		return []string{
			p.pick("利用者が開いたのか、自動の通信かを時刻と間隔で見分ける", "Person or program? Time and intervals tell"),
			p.pick("情報の入力がなかったか、クリニックへ確かめる", "Ask the clinic whether anything was typed in"),
		}
	case "scan":
		return []string{
			p.pick("送信元が院内か外部かを確かめる", "Inside or outside?"),
			p.pick("院内なら、資産管理や保守業者の調査でないか確かめる", "Inside: an inventory tool or a vendor at work?"),
		}
	case "policy":
		return []string{
			p.pick("運用上必要な通信か、クリニックへ確かめる", "Ask the clinic whether it needs this traffic"),
			p.pick("必要なら、期限つきの個別設定を用意する", "If so, prepare an override with an end date"),
		}
	}
	return []string{p.pick("直近の検知から、送信元と宛先を確かめる", "Look at source and destination of the recent alerts")}
}
