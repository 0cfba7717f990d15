module github.com/kadomori/kadomori/test

go 1.26.8

require (
	github.com/kadomori/kadomori/controlplane v0.0.0
	github.com/kadomori/kadomori/dataplane v0.0.0
	github.com/kadomori/kadomori/proto v0.0.0
	github.com/kadomori/kadomori/reporter v0.0.0
)

require (
	github.com/vishvananda/netlink v1.3.1 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	go.yaml.in/yaml/v2 v2.4.4 // indirect
	golang.org/x/sync v0.25.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
	helm.sh/helm/v4 v4.3.1 // indirect
	k8s.io/api v0.37.2 // indirect
	k8s.io/apimachinery v0.37.2 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)

replace github.com/kadomori/kadomori/proto => ../proto

replace github.com/kadomori/kadomori/dataplane => ../dataplane

replace github.com/kadomori/kadomori/controlplane => ../controlplane

replace github.com/kadomori/kadomori/reporter => ../reporter
