// Package chart renders the Helm chart in every situation of helm/scenarios and decodes what comes out into the Kubernetes
// types, strictly: a field that doesn't exist fails. The programs' configuration inside is read by the programs' own code.
package chart

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	control "github.com/kadomori/kadomori/controlplane/app"
	reporter "github.com/kadomori/kadomori/reporter/app"
)

const chartDir = "../../helm/kadomori"

// render returns the objects of the chart by "Kind/name", or the error that a person would get.
func render(t *testing.T, values map[string]any) (map[string][]byte, error) {
	t.Helper()
	ch, err := loader.Load(chartDir)
	if err != nil {
		t.Fatalf("load chart: %v", err)
	}
	rendered, err := util.ToRenderValues(ch, values, common.ReleaseOptions{Name: "kadomori", Namespace: "msp", Revision: 1, IsInstall: true},
		common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(ch, rendered)
	if err != nil {
		return nil, err
	}
	objects := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for doc := range bytes.SplitSeq([]byte(files[name]), []byte("\n---\n")) {
			var head struct {
				Kind     string `json:"kind"`
				Metadata struct {
					Name string `json:"name"`
				} `json:"metadata"`
			}
			if err := yaml.Unmarshal(doc, &head); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if head.Kind == "" {
				continue
			}
			key := head.Kind + "/" + head.Metadata.Name
			if _, twice := objects[key]; twice {
				return nil, fmt.Errorf("%s: %s is rendered twice", name, key)
			}
			objects[key] = doc
		}
	}
	return objects, nil
}

// strict decodes into the type of the kind; unknown kinds are refused so that nothing goes unchecked.
func strict(kind string, doc []byte) (any, error) {
	into := map[string]any{
		"ConfigMap": &corev1.ConfigMap{}, "Deployment": &appsv1.Deployment{}, "Service": &corev1.Service{}, "Job": &batchv1.Job{},
		"ServiceAccount": &corev1.ServiceAccount{}, "Ingress": &networkingv1.Ingress{}, "NetworkPolicy": &networkingv1.NetworkPolicy{},
		"PodDisruptionBudget": &policyv1.PodDisruptionBudget{}, "PodMonitor": &podMonitor{},
	}[kind]
	if into == nil {
		return nil, fmt.Errorf("kind %s has no type here", kind)
	}
	return into, yaml.UnmarshalStrict(doc, into)
}

// podMonitor is the part of the Prometheus Operator's type that we use (monitoring.coreos.com/v1).
type podMonitor struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		PodMetricsEndpoints []struct {
			Port string `json:"port"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

func scenario(t *testing.T, name string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return values
}

func TestChartEveryScenarioGivesObjectsThatKubernetesKnows(t *testing.T) {
	names, err := filepath.Glob("../../helm/scenarios/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			objects, err := render(t, scenario(t, name))
			if err != nil {
				t.Fatal(err)
			}
			deployments := map[string]*appsv1.Deployment{}
			services := map[string]*corev1.Service{}
			configs := map[string]*corev1.ConfigMap{}
			for key, doc := range objects {
				kind, _, _ := strings.Cut(key, "/")
				o, err := strict(kind, doc)
				if err != nil {
					t.Errorf("%s: %v\n%s", key, err, doc)
					continue
				}
				switch o := o.(type) {
				case *appsv1.Deployment:
					deployments[o.Name] = o
				case *corev1.Service:
					services[o.Name] = o
				case *corev1.ConfigMap:
					configs[o.Name] = o
				}
			}
			if len(deployments) != 2 {
				t.Errorf("%d deployments, want control plane and reporter", len(deployments))
			}
			for _, d := range deployments {
				checkDeployment(t, d, configs)
			}
			for _, s := range services {
				checkService(t, s, deployments)
			}
			checkConfigs(t, configs)
		})
	}
}

// checkDeployment wants least privilege, limits, probes on named ports, and volumes that exist.
func checkDeployment(t *testing.T, d *appsv1.Deployment, configs map[string]*corev1.ConfigMap) {
	t.Helper()
	for k, v := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[k] != v {
			t.Errorf("%s: selector %s=%s doesn't select its own pods", d.Name, k, v)
		}
	}
	pod := d.Spec.Template.Spec
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap != nil && configs[v.ConfigMap.Name] == nil {
			t.Errorf("%s: volume %s wants ConfigMap %s, which isn't rendered", d.Name, v.Name, v.ConfigMap.Name)
		}
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil ||
			*s.AllowPrivilegeEscalation || s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
			t.Errorf("%s/%s: not confined", d.Name, c.Name)
		}
		if c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s/%s: no limit of memory", d.Name, c.Name)
		}
		if c.LivenessProbe == nil {
			t.Errorf("%s/%s: no liveness probe", d.Name, c.Name)
		}
		ports := map[string]bool{}
		for _, p := range c.Ports {
			ports[p.Name] = true
		}
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if p == nil {
				continue
			}
			port := ""
			switch {
			case p.HTTPGet != nil:
				port = p.HTTPGet.Port.String()
			case p.TCPSocket != nil:
				port = p.TCPSocket.Port.String()
			}
			if !ports[port] {
				t.Errorf("%s/%s: probe of port %q, which isn't one of its ports", d.Name, c.Name, port)
			}
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s/%s: mounts %s, which is no volume", d.Name, c.Name, m.Name)
			}
		}
	}
}

func checkService(t *testing.T, s *corev1.Service, deployments map[string]*appsv1.Deployment) {
	t.Helper()
	for _, d := range deployments {
		selected := true
		for k, v := range s.Spec.Selector {
			selected = selected && d.Spec.Template.Labels[k] == v
		}
		if !selected {
			continue
		}
		ports := map[string]bool{}
		for _, c := range d.Spec.Template.Spec.Containers {
			for _, p := range c.Ports {
				ports[p.Name] = true
			}
		}
		for _, p := range s.Spec.Ports {
			if !ports[p.TargetPort.String()] {
				t.Errorf("service %s: target port %s isn't a port of %s", s.Name, p.TargetPort.String(), d.Name)
			}
		}
		return
	}
	t.Errorf("service %s selects nothing", s.Name)
}

// checkConfigs gives each program its configuration as the cluster would.
func checkConfigs(t *testing.T, configs map[string]*corev1.ConfigMap) {
	t.Helper()
	checked := 0
	for _, c := range configs {
		for name, text := range c.Data {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var err error
			switch name {
			case "control.yaml":
				_, err = control.Load(path)
			case "reporter.yaml":
				var c reporter.Config
				if c, err = reporter.ReadConfig(path); err == nil {
					err = c.Validate()
				}
			default:
				t.Errorf("%s: %s is no program's configuration", c.Name, name)
				continue
			}
			if err != nil {
				t.Errorf("%s: %s: %v\n%s", c.Name, name, err, text)
			}
			checked++
		}
	}
	if checked != 3 {
		t.Errorf("%d configurations checked, want those of the control plane, its migration and the reporter", checked)
	}
}

func TestChartRefusesWhatItCannotHonour(t *testing.T) {
	good := func() map[string]any { return scenario(t, "../../helm/scenarios/smallest.yaml") }
	for _, tt := range []struct {
		name   string
		change func(map[string]any)
		want   string
	}{
		{"no address for appliances", func(v map[string]any) { delete(v["control"].(map[string]any), "publicAddress") }, "control.publicAddress"},
		{"no NATS", func(v map[string]any) { delete(v, "nats") }, "nats.url"},
		{"NATS without TLS", func(v map[string]any) { v["nats"].(map[string]any)["url"] = "nats://nats:4222" }, "nats"},
		{"an unknown value", func(v map[string]any) { v["replicaCount"] = 2 }, "replicaCount"},
		{"no replica", func(v map[string]any) { v["control"].(map[string]any)["replicas"] = 0 }, "replicas"},
		{"an ingress without a name", func(v map[string]any) {
			v["control"].(map[string]any)["console"] = map[string]any{"ingress": map[string]any{"enabled": true}}
		}, "control.console.ingress.host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			values := good()
			tt.change(values)
			_, err := render(t, values)
			if err == nil {
				t.Fatal("rendered")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error doesn't name %s: %v", tt.want, err)
			}
		})
	}
}
